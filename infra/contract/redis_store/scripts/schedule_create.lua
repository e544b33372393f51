-- KEYS: schedule, user_schedules, unconfirmed_schedules
-- ARGV: id, user, cron, timezone, overlap, paused, title, run, digest, max_schedules (number)
-- Reply: outcome. SAME if the schedule exists with the same request digest; REFUSED if it exists with another digest, or is
-- being deleted; FULL if the user has as many schedules as allowed.

local known = redis.call('HMGET', schedule, 'digest', 'condemned')
if known[1] then return known[1] == digest and not known[2] and 'SAME' or 'REFUSED' end
if redis.call('ZCARD', user_schedules) >= max_schedules then return 'FULL' end
local ms = int(now_ms())
redis.call('HSET', schedule, 'id', id, 'user', user, 'cron', cron, 'timezone', timezone, 'overlap', overlap,
  'paused', paused, 'title', title, 'run', run, 'digest', digest, 'revision', '1', 'created_ms', ms)
redis.call('ZADD', user_schedules, ms, id)
redis.call('ZADD', unconfirmed_schedules, ms, id .. ':1')
return 'OK'
