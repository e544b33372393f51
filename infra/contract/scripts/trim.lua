-- KEYS: run, log
-- ARGV: fence, created_ms, segments (JSON, all of the run's archive), last (the last seq that is in the archive)
-- Answers: name. The fence alone decides: who claims the run next archives the rest of its log, whatever its status is.
-- The entry that holds `last` stays: by it a reader who is further behind sees that there is something to be read.
expect(2, 4)
local run, log = KEYS[1], KEYS[2]
local fence, created_ms, segments, last = ARGV[1], ARGV[2], ARGV[3], number(ARGV[4], 'last')

local held = redis.call('HMGET', run, 'fence', 'created_ms', 'segments', 'condemned')
if not held[1] or held[2] ~= created_ms then return { 'GONE' } end
if held[1] ~= fence then return { 'LOST' } end
-- One that comes late, when a later one has been here, would take back from the record what Redis has forgotten.
local known = held[3] and cjson.decode(held[3])
if known and known[#known][2] >= last then return { 'OK' } end
-- Whoever deletes the run may have looked for its objects already.
if held[4] then return { 'GONE' } end
redis.call('HSET', run, 'segments', segments)
redis.call('XTRIM', log, 'MINID', '=', int(last) .. '-0')
return { 'OK' }
