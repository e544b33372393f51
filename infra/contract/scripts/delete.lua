-- KEYS: run, log, user_runs, dead
-- ARGV: id
-- Answers: name, status. Only a run that was condemned can be deleted: who comes late shall not take a new one of the same id.
expect(4, 1)
local run, log, user_runs, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id = ARGV[1]

local found = redis.call('HMGET', run, 'status', 'condemned')
local status = found[1]
if status and not found[2] then return { 'REFUSED', status } end
redis.call('DEL', run, log)
redis.call('ZREM', user_runs, id)
redis.call('ZREM', dead, id)
return { status and 'OK' or 'GONE', status or '' }
