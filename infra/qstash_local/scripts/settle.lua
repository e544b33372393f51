-- KEYS: message, due, dead, dead_message, events
-- ARGV: id, take, outcome, delay_ms (number), failure, dead_s (number), max_dead (number), max_events (digits), event,
--   message_prefix, then id, spec, timeout_ms of a callback
-- Reply: OK, or LOST if the message was taken again or deleted since: nothing is changed then.
-- `outcome` is `delivered`, `failed` (a dead letter now), `retry` (again after the delay) or `postponed` (likewise, and it
-- does not count as an attempt). The callbacks become messages in the same step, so that a crash cannot lose them.

if redis.call('HGET', message, 'takes') ~= take then return 'LOST' end
local ms = now_ms()
if outcome == 'postponed' then
  redis.call('ZADD', due, int(ms + delay_ms), id)
  return 'OK'
end
for index = MORE, #ARGV, 3 do
  redis.call('HSET', message_prefix .. ARGV[index], 'spec', ARGV[index + 1], 'retried', '0', 'takes', '0',
    'timeout_ms', ARGV[index + 2])
  redis.call('ZADD', due, int(ms), ARGV[index])
end
if outcome == 'retry' then
  redis.call('HINCRBY', message, 'retried', 1)
  redis.call('ZADD', due, int(ms + delay_ms), id)
else
  if outcome == 'failed' then
    redis.call('HSET', dead_message, 'spec', redis.call('HGET', message, 'spec'), 'failure', failure)
    redis.call('EXPIRE', dead_message, int(dead_s))
    redis.call('ZREMRANGEBYSCORE', dead, '-inf', int(ms - dead_s * 1000))
    redis.call('ZADD', dead, int(ms), id)
    redis.call('ZREMRANGEBYRANK', dead, 0, int(-max_dead - 1))
  end
  redis.call('DEL', message)
  redis.call('ZREM', due, id)
end
redis.call('XADD', events, 'MAXLEN', '~', max_events, '*', 'e', event)
return 'OK'
