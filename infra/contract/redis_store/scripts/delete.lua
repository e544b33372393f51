-- KEYS: run, log, user_runs, dead
-- ARGV: id, channel
-- Reply: outcome, status. Deletes only a run that `mark_deleting` has marked: a repeated delete that arrives late must not
-- remove a new run with the same id.

local found = redis.call('HMGET', run, 'status', 'condemned')
local status = found[1]
if status and not found[2] then return { 'REFUSED', status } end
redis.call('DEL', run, log)
-- Protected: if one of these lists is damaged, the run is deleted all the same.
redis.pcall('ZREM', user_runs, id)
redis.pcall('ZREM', dead, id)
-- This message is no batch of events. A reader that receives it looks up the run, and finds that it no longer exists.
redis.call('PUBLISH', channel, 'deleted')
return { status and 'OK' or 'GONE', status or '' }
