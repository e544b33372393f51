-- KEYS: run
-- ARGV:
-- Reply: outcome, status. Marks a run that has ended, or was never started, as being deleted. From then on the run is not
-- queued again and no further log segment is named in its record, so the caller can find and delete all of its objects.
-- SAME if the run was marked before. The record's field is called `condemned` since the first release.

local found = redis.call('HMGET', run, 'status', 'condemned')
local status = found[1]
if not status then return { 'GONE' } end
if found[2] then return { 'SAME', status } end
if status ~= 'created' and not TERMINAL[status] then return { 'REFUSED', status } end
even_if_full('HDEL', 'HSET', run, 'condemned', '1')
return { 'OK', status }
