-- Shared by all scripts; NEXT and TERMINAL stand above. Names of KEYS and ARGV stand on top of each script.
-- The order of ready runs is one number: class of priority (0 first) times 1e15, plus microseconds since 2026-01-01.
-- It stays below 2^53, so a double holds it exactly, and is first in, first out within a class until 2057.

local EPOCH_US = 1767225600000000
local CLASS_US = 1000000000000000
local LOWEST_CLASS = 8

local function int(number)
  return string.format('%.0f', number)
end

-- At least so many keys and arguments.
local function expect(keys, arguments)
  if #KEYS < keys or #ARGV < arguments then
    error('expected ' .. keys .. ' keys and ' .. arguments .. ' arguments, got ' .. #KEYS .. ' and ' .. #ARGV)
  end
end

-- A numeric argument, checked before the first write: a script that fails half-way is not rolled back.
local function number(text, name)
  local value = tonumber(text)
  if not value then error('the argument ' .. name .. ' must be a number') end
  return value
end

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

local function order(priority, us)
  return int((LOWEST_CLASS - tonumber(priority)) * CLASS_US + us - EPOCH_US)
end

-- Whoever takes a wake token claims within so long, unless it dies or stands still: then the others are to look.
local CLAIMED_MS = 1000

-- Makes a run ready, or has it wait until `due` (ms; nil or past: now; only then `delayed` is needed). The control message
-- tells sleeping workers when to look; for a ready run the answer to the claim of whoever was woken takes that back.
local function enqueue(ready, pending, delayed, control, id, priority, us, due)
  local ms = math.floor(us / 1000)
  if due and due > ms then
    redis.call('ZADD', delayed, int(due), id)
    redis.call('PUBLISH', control, 'due ' .. int(due - ms))
  else
    redis.call('ZADD', ready, order(priority, us), id)
    -- More tokens than this one: nobody is asleep.
    if redis.call('RPUSH', pending, id) == 1 then redis.call('PUBLISH', control, 'due ' .. int(CLAIMED_MS)) end
  end
end

-- When a run that is started at `ms` is due: at the moment it names, or after its delay.
local function due_of(ms, start_at_ms, delay_ms)
  return tonumber(start_at_ms) or (tonumber(delay_ms) and ms + tonumber(delay_ms))
end

local function allowed(from, to)
  return NEXT[from] ~= nil and NEXT[from][to] == true
end

-- One event as a JSON array; `data` is JSON text.
local function event(ms, kind, data)
  return '[{"ts":' .. int(ms) .. ',"type":"' .. kind .. '","data":' .. data .. '}]'
end

-- Appends events to the stream and publishes the same bytes; answers the new last seq, which the caller must store.
local function append(log, channel, seq, count, events)
  local last = tonumber(seq) + tonumber(count)
  local batch = '{"first":' .. int(tonumber(seq) + 1) .. ',"events":' .. events .. '}'
  redis.call('XADD', log, int(last) .. '-0', 'b', batch)
  redis.call('PUBLISH', channel, batch)
  return last
end

-- What a write by a worker must pass: it holds the fence, the run is running, and the batch is the next one.
-- Answers the name of the refusal (nil if there is none) and the fields that callers need.
local function guard(run, fence, batch)
  local held = redis.call('HMGET', run, 'status', 'fence', 'batch', 'seq', 'cancel')
  local found = { status = held[1], seq = held[4], cancel = held[5] or '0' }
  if not held[1] then return 'GONE', found end
  if held[2] ~= fence then return 'LOST', found end
  if held[3] == batch then return 'SAME', found end
  if held[1] ~= 'running' then return 'LOST', found end
  if tonumber(batch) ~= tonumber(held[3]) + 1 then return 'REFUSED', found end
  return nil, found
end

-- HSET of the pairs in `fields`, and of the pairs (field, value) of ARGV from index `from` on; an empty value there takes
-- the field away. Lua unpacks no more than some 8,000 values at once.
local CHUNK = 4000

local function write(run, fields, from)
  local gone = {}
  for index = from or #ARGV + 1, #ARGV, 2 do
    local name, value = ARGV[index], ARGV[index + 1]
    if value == '' then
      gone[#gone + 1] = name
    else
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  for first = 1, #fields, CHUNK do
    redis.call('HSET', run, unpack(fields, first, math.min(first + CHUNK - 1, #fields)))
  end
  for first = 1, #gone, CHUNK do
    redis.call('HDEL', run, unpack(gone, first, math.min(first + CHUNK - 1, #gone)))
  end
end

-- Adds to `fields` that the attempt under a fence (nil: there was none) has ended, and how.
local function ended(fields, fence, ms, outcome)
  if fence then
    fields[#fields + 1] = 'attempt:' .. fence .. ':end'
    fields[#fields + 1] = cjson.encode({ ended_ms = ms, outcome = outcome })
  end
  return fields
end

local function expire(run, log, retention_s)
  redis.call('EXPIRE', run, retention_s)
  redis.call('EXPIRE', log, retention_s)
end
