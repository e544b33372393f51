-- KEYS: due, ticks, schedules
-- ARGV: message_prefix, count (number), margin_ms (number), max_ticks (number)
-- Reply: ms until the next message or schedule is due (-1 if there is none), a list of id, spec, retried and take of each
-- message that is taken, a list of id, time and spec of each due schedule.
-- A taken message is due again `margin_ms` after its timeout, so that it is delivered again if its process dies. Each take
-- has a number, and only the last one may settle the message. A due schedule stays due until its tick is stored.

local ms = now_ms()
local messages, due_schedules = {}, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', int(ms), 'LIMIT', 0, count)) do
  local held = redis.call('HMGET', message_prefix .. id, 'spec', 'retried', 'timeout_ms')
  if held[1] then
    local take = redis.call('HINCRBY', message_prefix .. id, 'takes', 1)
    redis.call('ZADD', due, int(ms + tonumber(held[3]) + margin_ms), id)
    for _, value in ipairs({ id, held[1], held[2], take }) do messages[#messages + 1] = value end
  else
    redis.call('ZREM', due, id)
  end
end
local found = redis.call('ZRANGEBYSCORE', ticks, '-inf', int(ms), 'WITHSCORES', 'LIMIT', 0, max_ticks)
for index = 1, #found, 2 do
  local spec = redis.call('HGET', schedules, found[index])
  if spec then
    for _, value in ipairs({ found[index], found[index + 1], spec }) do due_schedules[#due_schedules + 1] = value end
  else
    redis.call('ZREM', ticks, found[index])
  end
end
local next_ms = -1
for _, set in ipairs({ due, ticks }) do
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  if first and (next_ms < 0 or tonumber(first) - ms < next_ms) then next_ms = math.max(0, tonumber(first) - ms) end
end
return { next_ms, messages, due_schedules }
