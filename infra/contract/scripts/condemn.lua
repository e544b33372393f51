-- KEYS: run
-- ARGV: none
-- Answers: name, status. A run that has ended, or was never started, is to be deleted: from now on it is not queued again and no
-- segment of its log is named, so that whoever deletes its objects knows all of them. SAME if it was condemned before.
expect(1, 0)
local found = redis.call('HMGET', KEYS[1], 'status', 'condemned')
local status = found[1]
if not status then return { 'GONE' } end
if found[2] then return { 'SAME', status } end
if status ~= 'created' and not TERMINAL[status] then return { 'REFUSED', status } end
redis.call('HSET', KEYS[1], 'condemned', '1')
return { 'OK', status }
