-- KEYS: outbox, delayed
-- ARGV: count (number)
-- Reply: entries that nobody has published in time, up to `count`. They are due again after AGAIN_MS, unless they are
-- published meanwhile.

local ms = now_ms()
local entries = redis.call('ZRANGEBYSCORE', outbox, '-inf', int(ms), 'LIMIT', 0, count)
if #entries == 0 then return entries end
local later = {}
for _, entry in ipairs(entries) do
  later[#later + 1] = int(ms + AGAIN_MS)
  later[#later + 1] = entry
end
redis.call('ZADD', outbox, unpack(later))
redis.call('ZADD', delayed, redis.call('ZRANGE', outbox, 0, 0, 'WITHSCORES')[2], OVERDUE_EVENTS)
return entries
