-- KEYS: run, user_runs, ready, pending, delayed
-- ARGV: id, user, version, spec, brief, digest, priority, max_attempts, start (0 or 1), delay_ms, start_at_ms,
--   queue_ttl_ms (each of the three may be empty), index_ttl_s, unstarted_ttl_s, control, run_prefix
-- Answers: name, created_ms. SAME if the run stands with the same digest of the request, REFUSED with another, or if it is being
-- deleted.
expect(5, 16)
local run, user_runs, ready, pending, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, user, version, spec, brief, digest = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local priority, max_attempts, start = ARGV[7], ARGV[8], ARGV[9]
local delay_ms, start_at_ms, queue_ttl_ms = ARGV[10], ARGV[11], ARGV[12]
local index_ttl_s, unstarted_ttl_s = number(ARGV[13], 'index_ttl_s'), number(ARGV[14], 'unstarted_ttl_s')
local control, run_prefix = ARGV[15], ARGV[16]
-- One create in so many looks at so many of the oldest ids in the index.
local SELDOM, SOME = 16, 32
number(priority, 'priority')
number(max_attempts, 'max_attempts')
number(start, 'start')

local known = redis.call('HMGET', run, 'digest', 'condemned')
if known[1] then
  return { known[1] == digest and not known[2] and 'SAME' or 'REFUSED' }
end
local us = now_us()
local ms = math.floor(us / 1000)
local fields = {
  'v', version, 'id', id, 'user', user, 'spec', spec, 'brief', brief, 'digest', digest,
  'priority', priority, 'max_attempts', max_attempts, 'attempt', '0', 'fence', '0', 'batch', '0', 'seq', '0',
  'cancel', '0', 'created_ms', int(ms), 'status', start == '1' and 'queued' or 'created',
}
local function optional(name, value)
  if value ~= '' then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end
optional('delay_ms', delay_ms)
optional('start_at_ms', start_at_ms)
optional('queue_ttl_ms', queue_ttl_ms)
optional('queued_ms', start == '1' and int(ms) or '')
write(run, fields)
if start ~= '1' then redis.call('EXPIRE', run, unstarted_ttl_s) end
redis.call('ZADD', user_runs, int(ms), id)
redis.call('EXPIRE', user_runs, index_ttl_s)
-- Who lists his runs rids the index of those that have expired; of who never does, it would only grow.
if us % SELDOM == 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', user_runs, 0, SOME - 1)) do
    if redis.call('EXISTS', run_prefix .. oldest) == 1 then break end
    redis.call('ZREM', user_runs, oldest)
  end
end
if start == '1' then
  enqueue(ready, pending, delayed, control, id, priority, us, due_of(ms, start_at_ms, delay_ms))
end
return { 'OK', int(ms) }
