-- KEYS: run
-- ARGV: id, control
-- Reply: outcome, status. The worker of the run, or its next one, lets it wait. SAME if that was asked for before, or it waits.

local found = redis.call('HMGET', run, 'status', 'interrupt', 'condemned')
local status = found[1]
if not status or found[3] then return { 'GONE' } end
if status == 'waiting' then return { 'SAME', status } end
if status ~= 'queued' and status ~= 'running' then return { 'REFUSED', status } end
if found[2] == '1' then return { 'SAME', status } end
redis.call('HSET', run, 'interrupt', '1')
if status == 'running' then redis.call('PUBLISH', control, 'interrupt ' .. id) end
return { 'OK', status }
