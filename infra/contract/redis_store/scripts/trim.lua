-- KEYS: run, log
-- ARGV: fence, owner, created_ms, segments, last (number)
-- Reply: outcome. `segments` is the JSON of all archived segments, `last` the last archived seq. Only the claim decides,
-- whatever the status is: the next owner archives the rest of the log. The stream entry that holds `last` stays, so a
-- reader further behind sees that events are missing from the stream.

local held = redis.call('HMGET', run, 'fence', 'created_ms', 'segments', 'condemned', 'claim')
if not held[1] or held[2] ~= created_ms then return { 'GONE' } end
if is_stale(held[1], held[5], fence, owner) then return { 'LOST' } end
-- A call that arrives after a later one would remove segments from the record whose events Redis no longer has.
local known = held[3] and cjson.decode(held[3])
if known and known[#known][2] >= last then return { 'OK' } end
-- The caller that deletes the run may have listed its objects already.
if held[4] then return { 'GONE' } end
redis.call('HSET', run, 'segments', segments)
redis.call('XTRIM', log, 'MINID', '=', int(last) .. '-0')
return { 'OK' }
