-- KEYS: run, log, user_runs, dead
-- ARGV: id, channel
-- Answers: name, status. Only a run that was condemned can be deleted: who comes late shall not take a new one of the same id.
expect(4, 2)
local run, log, user_runs, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, channel = ARGV[1], ARGV[2]

local found = redis.call('HMGET', run, 'status', 'condemned')
local status = found[1]
if status and not found[2] then return { 'REFUSED', status } end
redis.call('DEL', run, log)
redis.call('ZREM', user_runs, id)
redis.call('ZREM', dead, id)
-- No batch of events: whoever follows the log looks for the run, and finds that it is gone.
redis.call('PUBLISH', channel, 'deleted')
return { status and 'OK' or 'GONE', status or '' }
