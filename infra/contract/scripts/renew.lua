-- KEYS: leases, then the run of each pair below
-- ARGV: lease_ms, then pairs: id, fence
-- Answers for each pair in order: name, cancel. The name is OK, LOST or GONE.
expect(1, 1)
local leases = KEYS[1]
local lease_ms = number(ARGV[1], 'lease_ms')

local expiry = int(now_ms() + lease_ms)
local answer = {}
for index = 2, #KEYS do
  local id, fence = ARGV[2 * index - 2], ARGV[2 * index - 1]
  local held = redis.call('HMGET', KEYS[index], 'status', 'fence', 'cancel')
  local name = 'OK'
  if not held[1] then
    name = 'GONE'
  elseif held[1] ~= 'running' or held[2] ~= fence then
    name = 'LOST'
  else
    redis.call('ZADD', leases, expiry, id)
  end
  answer[#answer + 1] = name
  answer[#answer + 1] = held[3] or '0'
end
return answer
