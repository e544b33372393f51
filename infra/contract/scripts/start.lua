-- KEYS: run, ready, pending
-- ARGV: id
-- Answers: name, status. SAME if it was started before and has not ended.
expect(3, 1)
local run, ready, pending = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]

local found = redis.call('HMGET', run, 'status', 'priority')
local status, priority = found[1], found[2]
if not status then return { 'GONE' } end
if status == 'queued' or status == 'running' then return { 'SAME', status } end
if status ~= 'created' or not allowed(status, 'queued') then return { 'REFUSED', status } end
local us = now_us()
write(run, { 'status', 'queued', 'queued_ms', int(math.floor(us / 1000)) })
redis.call('PERSIST', run)
redis.call('ZADD', ready, order(priority, us), id)
redis.call('RPUSH', pending, id)
return { 'OK', 'queued' }
