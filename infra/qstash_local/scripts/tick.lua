-- KEYS: ticks, message, due, events
-- ARGV: schedule_id, tick_ms (number), next_ms (digits), id, spec, timeout_ms (digits), delay_ms (number),
--   max_messages (number), max_events (digits), event
-- Reply: OK; LOST if the schedule was changed, paused or deleted since it was read; FULL if no more messages are taken, and
-- the schedule is still due then.

if tonumber(redis.call('ZSCORE', ticks, schedule_id) or '-1') ~= tick_ms then return 'LOST' end
if redis.call('EXISTS', message) == 0 then
  if redis.call('ZCARD', due) >= max_messages then return 'FULL' end
  redis.call('HSET', message, 'spec', spec, 'retried', '0', 'takes', '0', 'timeout_ms', timeout_ms)
  redis.call('ZADD', due, int(now_ms() + delay_ms), id)
  redis.call('XADD', events, 'MAXLEN', '~', max_events, '*', 'e', event)
end
redis.call('ZADD', ticks, next_ms, schedule_id)
return 'OK'
