-- KEYS: schedule, unconfirmed_schedules
-- ARGV: id, revision, condemned, then field, value
-- Reply: outcome, revision. REFUSED if the schedule has another revision by now; GONE. With `condemned` = 1 the schedule is
-- being deleted from now on: its ticks create no runs.

local MAX_UNCONFIRMED = 10

local held = redis.call('HMGET', schedule, 'revision', 'condemned')
if not held[1] then return { 'GONE' } end
if held[2] then return condemned == '1' and { 'SAME', held[1] } or { 'GONE' } end
if held[1] ~= revision then return { 'REFUSED', held[1] } end
local following = int(tonumber(revision) + 1)
local fields = { 'revision', following }
if condemned == '1' then
  fields[#fields + 1] = 'condemned'
  fields[#fields + 1] = '1'
end
write(schedule, fields, MORE)
-- While QStash does not answer, a schedule that is changed again and again must not fill the set.
redis.call('ZREM', unconfirmed_schedules, id .. ':' .. int(tonumber(following) - MAX_UNCONFIRMED))
redis.call('ZADD', unconfirmed_schedules, int(now_ms()), id .. ':' .. following)
return { 'OK', following }
