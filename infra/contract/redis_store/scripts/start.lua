-- KEYS: run, ready, pending, delayed
-- ARGV: id, control
-- Reply: outcome, status. SAME if the run was started before and has not ended.

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
