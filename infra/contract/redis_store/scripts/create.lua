-- KEYS: run, user_runs, ready, pending, delayed
-- ARGV: id, user, version, spec, brief, digest, priority (digits), max_attempts (digits), start (digits), delay_ms,
--   start_at_ms, queue_ttl_ms, inputs, traceparent, hook_url, hook_events, index_ttl_s (number), unstarted_ttl_s (number),
--   control, run_prefix
-- Reply: outcome, created_ms. SAME if the run exists with the same request digest; REFUSED if it exists with another
-- digest, or is being deleted. `start` is 0 or 1; `delay_ms`, `start_at_ms`, `queue_ttl_ms`, `inputs`, `traceparent`,
-- `hook_url` and `hook_events` may be empty. No input of a new run is uploaded by a client.

-- One create in TIDY_EVERY looks at the TIDY_COUNT oldest ids in the user's index.
local TIDY_EVERY, TIDY_COUNT = 16, 32

local known = redis.call('HMGET', run, 'digest', 'condemned')
if known[1] then
  return { known[1] == digest and not known[2] and 'SAME' or 'REFUSED' }
end
local us = now_us()
local ms, score = math.floor(us / 1000), order(priority, us)
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
optional('inputs', inputs)
optional('traceparent', traceparent)
optional('hook_url', hook_url)
optional('hook_events', hook_events)
optional('queued_ms', start == '1' and int(ms) or '')
-- The record comes last: if the index or the queue is damaged, a repeated request must not find a run that nobody executes.
redis.call('ZADD', user_runs, int(ms), id)
redis.call('EXPIRE', user_runs, index_ttl_s)
if start == '1' then
  enqueue(ready, pending, delayed, control, id, score, ms, due_of(ms, start_at_ms, delay_ms))
end
write(run, fields)
if start ~= '1' then redis.call('EXPIRE', run, unstarted_ttl_s) end
-- Listing runs removes expired ids from the index. A user who never lists needs this, or the index would only grow.
if us % TIDY_EVERY == 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', user_runs, 0, TIDY_COUNT - 1)) do
    if redis.call('EXISTS', run_prefix .. oldest) == 1 then break end
    redis.call('ZREM', user_runs, oldest)
  end
end
return { 'OK', int(ms) }
