-- KEYS: run
-- ARGV: seq (digits), at_ms (number), round, token, result, attempt
-- Reply: OK; SAME if the attempt was settled before, or has lost its lease; GONE. `result` is `delivered`, `failed` (for good)
-- or `again`. Also without its lease a delivery counts: the receiver has the event.

local name = 'hook:' .. seq
local held = redis.call('HMGET', run, name, name .. ':lease', name .. ':tries')
if not held[1] or cjson.decode(held[1]).at_ms ~= at_ms then return 'GONE' end
local fields = {}
if result == 'delivered' then
  fields = { name .. ':done', round }
elseif result == 'failed' then
  fields = { name .. ':failed', round }
end
if (held[2] or ''):match('^(.*):%d+$') ~= token then
  if result == 'delivered' then write(run, fields) end
  return 'SAME'
end
local try = tonumber(held[3] or 0) + 1
for _, value in ipairs({ name .. ':tries', int(try), name .. ':' .. int(try), attempt }) do fields[#fields + 1] = value end
write(run, fields)
redis.call('HDEL', run, name .. ':lease', name .. ':' .. int(try - MAX_ATTEMPTS_SHOWN))
return 'OK'
