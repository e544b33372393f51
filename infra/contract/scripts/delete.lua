-- KEYS: run, log, user_runs, dead
-- ARGV: id
-- Answers: name, status. Only a run that has ended, or was never started, can be deleted.
expect(4, 1)
local run, log, user_runs, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id = ARGV[1]

local status = redis.call('HGET', run, 'status')
if status and status ~= 'created' and not TERMINAL[status] then return { 'REFUSED', status } end
redis.call('DEL', run, log)
redis.call('ZREM', user_runs, id)
redis.call('ZREM', dead, id)
return { status and 'OK' or 'GONE', status or '' }
