-- KEYS: run
-- ARGV: user, seq (digits), at_ms (number), round (number), token, lease_ms (number)
-- Reply: OK, then the event, the URL, the brief, created_ms, started_ms (empty if never). SAME if the event was delivered, or is
-- sent again under a later number. REFUSED and the ms of its lease if another attempt is under way. GONE if there is no such
-- event. `token` names the attempt, which holds the lease until it is settled.

local name = 'hook:' .. seq
local held = redis.call(
  'HMGET', run, name, name .. ':done', name .. ':round', name .. ':lease', 'user', 'condemned', 'hook_url', 'brief',
  'created_ms', 'started_ms'
)
if not held[1] or held[5] ~= user or held[6] or cjson.decode(held[1]).at_ms ~= at_ms then return { 'GONE' } end
if tonumber(held[2] or 0) >= round or tonumber(held[3] or 1) > round then return { 'SAME' } end
local ms = now_ms()
local by, expiry = (held[4] or ''):match('^(.*):(%d+)$')
if by and by ~= token and tonumber(expiry) > ms then return { 'REFUSED', tonumber(expiry) - ms } end
redis.call('HSET', run, name .. ':lease', token .. ':' .. int(ms + lease_ms))
return { 'OK', held[1], held[7], held[8], held[9], held[10] or '' }
