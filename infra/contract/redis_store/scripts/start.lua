-- KEYS: run, ready, pending, delayed
-- ARGV: id, inputs_version, control
-- Reply: outcome, status. SAME if the run was started before and has not ended. REFUSED with the status `created` if the
-- inputs are not the version that the caller has checked.

local found =
  redis.call('HMGET', run, 'status', 'priority', 'start_at_ms', 'delay_ms', 'condemned', 'inputs', 'inputs_version')
local status, priority = found[1], found[2]
if not status or found[5] then return { 'GONE' } end
if status == 'queued' or status == 'running' then return { 'SAME', status } end
if status ~= 'created' or not allowed(status, 'queued') then return { 'REFUSED', status } end
if (found[7] or '0') ~= inputs_version then return { 'REFUSED', status } end
local us = now_us()
local ms, score = math.floor(us / 1000), order(priority, us)
local fields = with_uploads({ 'status', 'queued', 'queued_ms', int(ms) }, found[6])
enqueue(ready, pending, delayed, control, id, score, ms, due_of(ms, found[3], found[4]))
write(run, fields)
redis.call('PERSIST', run)
return { 'OK', 'queued' }
