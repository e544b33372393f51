-- KEYS: schedules, ticks
-- ARGV: id, next_ms (digits)
-- Reply: OK, or GONE if there is no such schedule. One that is not paused keeps its next time.

if redis.call('HEXISTS', schedules, id) == 0 then return 'GONE' end
redis.call('ZADD', ticks, 'NX', next_ms, id)
return 'OK'
