-- KEYS: run, log, ready, pending
-- ARGV: id, input, data (JSON of the event), channel, token (of this call: a replay answers SAME), control
-- Answers: name, status.
expect(4, 6)
local run, log, ready, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, input, data, channel, token, control = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

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
