-- KEYS: run, log
-- ARGV: channel, token, message, data, max_unread (number), max_messages (number)
-- Reply: outcome, status; REFUSED with the status of an active run: then the number of its unread messages, and of all. `message`
-- is the JSON of the message without its time, `data` that of the event. `token` as in resume.lua.
-- A worker reads a message at its next claim, or between two calls; a run does not succeed before all are read.

local found =
  redis.call('HMGET', run, 'status', 'seq', 'token', 'token:' .. token, 'condemned', 'messages', 'read')
local status, seq = found[1], found[2]
if not status or found[5] then return { 'GONE' } end
if found[3] == token or found[4] then return { 'SAME', status } end
if status ~= 'queued' and status ~= 'running' and status ~= 'waiting' then return { 'REFUSED', status } end
local count = tonumber(found[6] or 0)
local unread = count - tonumber(found[7] or 0)
if unread >= max_unread or count >= max_messages then return { 'REFUSED', status, int(unread), int(count) } end
local ms = now_ms()
local last = append(log, channel, seq, 1, event(ms, 'message.received', data))
local number = int(count + 1)
write(run, {
  'seq', int(last), 'messages', number, 'message:' .. number, '{"at_ms":' .. int(ms) .. ',' .. message:sub(2),
  'token', token, 'token:' .. token, '1',
})
return { 'OK', status }
