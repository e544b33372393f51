-- KEYS: run, ready, pending, delayed
-- ARGV: id, control
-- Answers: name, status. SAME if it was started before and has not ended.
expect(4, 2)
local run, ready, pending, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, control = ARGV[1], ARGV[2]

local found = redis.call('HMGET', run, 'status', 'priority', 'start_at_ms', 'delay_ms', 'condemned')
local status, priority = found[1], found[2]
if not status or found[5] then return { 'GONE' } end
if status == 'queued' or status == 'running' then return { 'SAME', status } end
if status ~= 'created' or not allowed(status, 'queued') then return { 'REFUSED', status } end
local us = now_us()
local ms = math.floor(us / 1000)
write(run, { 'status', 'queued', 'queued_ms', int(ms) })
redis.call('PERSIST', run)
enqueue(ready, pending, delayed, control, id, priority, us, due_of(ms, found[3], found[4]))
return { 'OK', 'queued' }
