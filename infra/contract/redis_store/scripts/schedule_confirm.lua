-- KEYS: schedule, user_schedules, unconfirmed_schedules
-- ARGV: id, revision, then change
-- Reply: OK; REFUSED if the schedule was changed since, so that QStash may know an older revision.
-- The changes are members of `unconfirmed_schedules`; one of another request stays until that request has reached QStash, too.
-- A schedule that is being deleted is removed.

local held = redis.call('HMGET', schedule, 'revision', 'condemned')
if held[1] and held[1] ~= revision then return 'REFUSED' end
if held[2] then
  redis.call('DEL', schedule)
  redis.call('ZREM', user_schedules, id)
elseif held[1] then
  redis.call('HSET', schedule, 'confirmed', revision)
end
if #ARGV >= MORE then redis.call('ZREM', unconfirmed_schedules, unpack(ARGV, MORE)) end
return 'OK'
