-- KEYS: schedules, ticks
-- ARGV: id, spec, next_ms (digits), max_schedules (number)
-- Reply: OK, or FULL if it is a new schedule and no more are taken. A schedule that exists is replaced, and not paused.

if redis.call('HEXISTS', schedules, id) == 0 and redis.call('HLEN', schedules) >= max_schedules then return 'FULL' end
redis.call('HSET', schedules, id, spec)
redis.call('ZADD', ticks, next_ms, id)
return 'OK'
