-- KEYS: run, log, ready, pending
-- ARGV: id, input, data, channel, token, control
-- Reply: outcome, status. `data` is the JSON of the event. `token` names this request; SAME if the request was carried out
-- before.

local found = redis.call('HMGET', run, 'status', 'priority', 'seq', 'token', 'token:' .. token)
local status, priority, seq = found[1], found[2], found[3]
if not status then return { 'GONE' } end
if found[4] == token or found[5] then return { 'SAME', status } end
if status ~= 'waiting' or not allowed(status, 'queued') then return { 'REFUSED', status } end
local us = now_us()
local ms = math.floor(us / 1000)
local last = append(log, channel, seq, 1, event(ms, 'run.input', data))
write(run, {
  'status', 'queued', 'queued_ms', int(ms), 'seq', int(last), 'input', input, 'token', token, 'token:' .. token, '1',
})
enqueue(ready, pending, nil, control, id, priority, us)
return { 'OK', 'queued' }
