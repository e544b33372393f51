-- KEYS: message, due, duplicates, events
-- ARGV: id, spec, timeout_ms (digits), delay_ms (number), not_before_ms (number), duplicates_s (number),
--   max_messages (number), max_events (digits), event
-- Reply: outcome, id. SAME with the id of an earlier message, FULL if no more messages are taken.
-- `duplicates_s` is how long another message with the key `duplicates` is the same one; 0: it never is.

local known = duplicates_s > 0 and redis.call('GET', duplicates)
if known then return { 'SAME', known } end
if redis.call('EXISTS', message) == 1 then return { 'OK', id } end
if redis.call('ZCARD', due) >= max_messages then return { 'FULL', id } end
redis.call('HSET', message, 'spec', spec, 'retried', '0', 'takes', '0', 'timeout_ms', timeout_ms)
redis.call('ZADD', due, int(math.max(now_ms() + delay_ms, not_before_ms)), id)
if duplicates_s > 0 then redis.call('SET', duplicates, id, 'EX', int(duplicates_s)) end
redis.call('XADD', events, 'MAXLEN', '~', max_events, '*', 'e', event)
return { 'OK', id }
