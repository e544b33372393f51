-- KEYS: leases, then run
-- ARGV: lease_ms (number), then id, fence, owner
-- Reply for each lease in order: outcome, stop. The outcome is OK, LOST or GONE.

local expiry = int(now_ms() + lease_ms)
local reply = {}
for index = 2, #KEYS do
  local at = MORE + 3 * (index - 2)
  local id, fence, owner = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local held = redis.pcall('HMGET', KEYS[index], 'status', 'fence', 'cancel', 'interrupt', 'claim')
  if held.err then
    -- A key that holds no record any more must not cost the other runs their leases.
    if not held.err:find('WRONGTYPE', 1, true) then error(held) end
    held = {}
  end
  local outcome = 'OK'
  if not held[1] then
    outcome = 'GONE'
  elseif held[1] ~= 'running' or is_stale(held[2], held[5], fence, owner) then
    outcome = 'LOST'
  else
    -- While the memory of Redis is full, runs wait with their writes: they must not lose their leases for that.
    even_if_full('ZREM', 'ZADD', leases, expiry, id)
  end
  reply[#reply + 1] = outcome
  reply[#reply + 1] = stop_of(held[3], held[4])
end
return reply
