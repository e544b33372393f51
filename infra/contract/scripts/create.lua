-- KEYS: run, user_runs, ready, pending
-- ARGV: id, user, version, spec, brief, digest, priority, max_attempts, start (0 or 1), index_ttl_s, unstarted_ttl_s
-- Answers: name, created_ms. SAME if the run stands with the same digest of the request, REFUSED with another.
expect(4, 11)
local run, user_runs, ready, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, user, version, spec, brief, digest = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local priority, max_attempts, start = ARGV[7], ARGV[8], ARGV[9]
local index_ttl_s, unstarted_ttl_s = number(ARGV[10], 'index_ttl_s'), number(ARGV[11], 'unstarted_ttl_s')
number(priority, 'priority')
number(max_attempts, 'max_attempts')
number(start, 'start')

local known = redis.call('HGET', run, 'digest')
if known then
  return { known == digest and 'SAME' or 'REFUSED' }
end
local us = now_us()
local ms = int(math.floor(us / 1000))
local fields = {
  'v', version, 'id', id, 'user', user, 'spec', spec, 'brief', brief, 'digest', digest,
  'priority', priority, 'max_attempts', max_attempts, 'attempt', '0', 'fence', '0', 'batch', '0', 'seq', '0', 'cancel', '0', 'created_ms', ms,
}
if start == '1' then
  write(run, { 'status', 'queued', 'queued_ms', ms, unpack(fields) })
else
  write(run, { 'status', 'created', unpack(fields) })
  redis.call('EXPIRE', run, unstarted_ttl_s)
end
redis.call('ZADD', user_runs, ms, id)
redis.call('EXPIRE', user_runs, index_ttl_s)
if start == '1' then
  redis.call('ZADD', ready, order(priority, us), id)
  redis.call('RPUSH', pending, id)
end
return { 'OK', ms }
