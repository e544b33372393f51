-- KEYS: run, log, ready, pending, dead
-- ARGV: id, channel, token, inputs_version, control, limits
-- Reply: outcome, status. Queues a failed or cancelled run again with fresh attempts. Its journal stays, except for the
-- mark of the call that was under way, and its execution: a user who asks for a retry wants that call repeated. `token` names this request;
-- SAME if the request was carried out before. A run that was cancelled before its start is started here, with its inputs;
-- REFUSED with the status `cancelled` if these are not the version that the caller has checked.
-- Answers that the run has not used are removed: they were given before its end.
-- `limits`: JSON of the limits from now on; empty: they stay.

local found = redis.call(
  'HMGET', run, 'status', 'priority', 'seq', 'token', 'token:' .. token, 'condemned', 'queued_ms', 'inputs', 'inputs_version'
)
local status, priority, seq = found[1], found[2], found[3]
if not status or found[6] then return { 'GONE' } end
if found[4] == token or found[5] then return { 'SAME', status } end
if not TERMINAL[status] or not allowed(status, 'queued') then return { 'REFUSED', status } end
if not found[7] and (found[9] or '0') ~= inputs_version then return { 'REFUSED', status } end
local us = now_us()
local ms, score = math.floor(us / 1000), order(priority, us)
local fields = {
  'status', 'queued', 'queued_ms', int(ms), 'attempt', '0', 'cancel', '0', 'interrupt', '0', 'token', token,
  'token:' .. token, '1', 'finished_ms', '', 'result', '', 'error', '', 'answers', '',
}
if limits ~= '' then
  fields[#fields + 1] = 'limits'
  fields[#fields + 1] = limits
end
if not found[7] then with_uploads(fields, found[8]) end
enqueue(ready, pending, nil, control, id, score, ms)
local last = append(log, channel, seq, 1, event(ms, 'run.retried', '{"after":"' .. status .. '"}'))
fields[#fields + 1] = 'seq'
fields[#fields + 1] = int(last)
write(run, fields)
redis.call('HDEL', run, JOURNAL_STARTED, JOURNAL_EXECUTION, JOURNAL_LOGGED, 'unable')
redis.call('PERSIST', run)
redis.call('PERSIST', log)
redis.pcall('ZREM', dead, id)
return { 'OK', 'queued' }
