-- KEYS: run, log, ready, pending, waiting
-- ARGV: id, channel, token, control, then request, answer, data
-- Reply: outcome, status, then the ids of the open requests. `answer` is the JSON of an answer without its time, `data` that
-- of the event. All answers are taken or none: REFUSED if a request is not open, or without an answer. The run is queued once no request is open.
-- `token` names this call; SAME if the call was carried out before.

local found =
  redis.call('HMGET', run, 'status', 'priority', 'seq', 'token', 'token:' .. token, 'requests', 'answers')
local status, priority, seq, answers = found[1], found[2], found[3], found[7]
if not status then return { 'GONE' } end
if found[4] == token or found[5] then return { 'SAME', status } end
if status ~= 'waiting' or not allowed(status, 'queued') then return { 'REFUSED', status } end
local us = now_us()
local ms, score = math.floor(us / 1000), order(priority, us)
local requests = open_requests(found[6])
local open, ids = {}, {}
for _, each in ipairs(requests) do
  -- An expired request is not open, though no claim may have dealt with it yet.
  if each.expires_ms > ms then
    open[each.id] = true
    ids[#ids + 1] = each.id
  end
end
if #ARGV < MORE then return { 'REFUSED', status, unpack(ids) } end
for index = MORE, #ARGV, 3 do
  if not open[ARGV[index]] then return { 'REFUSED', status, unpack(ids) } end
end
local given = {}
for index = MORE, #ARGV, 3 do
  given[ARGV[index]] = true
  answers = with_answer(answers, ARGV[index], ms, ARGV[index + 1])
end
local rest, soonest = without(requests, given)
if not soonest then enqueue(ready, pending, nil, control, id, score, ms) end
for index = MORE, #ARGV, 3 do seq = append(log, channel, seq, 1, event(ms, 'run.input', ARGV[index + 2])) end
local fields = { 'seq', int(seq), 'answers', answers, 'requests', rest, 'token', token, 'token:' .. token, '1' }
if soonest then
  write(run, fields)
  redis.pcall('ZADD', waiting, int(soonest), id)
  return { 'OK', status }
end
for _, value in ipairs({ 'status', 'queued', 'queued_ms', int(ms) }) do fields[#fields + 1] = value end
write(run, fields)
redis.pcall('ZREM', waiting, id)
return { 'OK', 'queued' }
