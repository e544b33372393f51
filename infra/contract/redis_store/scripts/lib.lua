-- Functions shared by all scripts. The loader puts NEXT, TERMINAL, JOURNAL_STARTED, JOURNAL_EXECUTION, JOURNAL_LOGGED,
-- JOURNAL_SESSION, FILE, EXPIRIES, OVERDUE_EVENTS, USAGE_S and the numbers of webhooks before them, and the local variables of
-- a script's header after them.
-- Ready runs are ordered by one number: priority class (0 first) times 1e15, plus microseconds since 2026-01-01. The number
-- stays below 2^53, so a double holds it exactly, and runs of a class are first in, first out until 2057.

local EPOCH_US = 1767225600000000
local CLASS_US = 1000000000000000
local LOWEST_CLASS = 8
local LARGEST_SCORE = 9007199254740992

local function int(number)
  return string.format('%.0f', number)
end

-- Raises an error if there are fewer keys or arguments.
local function expect(keys, arguments)
  if #KEYS < keys or #ARGV < arguments then
    error('expected ' .. keys .. ' keys and ' .. arguments .. ' arguments, got ' .. #KEYS .. ' and ' .. #ARGV)
  end
end

-- A numeric argument, converted. It is checked before the first write: a script that fails half-way is not rolled back.
local function number(text, name)
  local value = tonumber(text)
  if not value then error('the argument ' .. name .. ' must be a number') end
  return value
end

-- A numeric argument, checked and kept as text: it is stored, or compared to a stored field.
local function digits(text, name)
  number(text, name)
  return text
end

-- Whether an error, or the reply of a protected call, says that Redis has no memory left. It then refuses a command that may
-- take more, unless the script has written before; a command that removes nothing is such a write, too.
local function is_full(reply)
  local text = type(reply) == 'table' and reply.err or reply
  return type(text) == 'string' and (text:find('OOM command', 1, true) or text:find('quota exceeded', 1, true)) ~= nil
end

-- Executes a write also while the memory is full: one after which a run takes less of it, or keeps its lease. `remove` is a
-- command that removes members of such a key.
local function even_if_full(remove, command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if is_full(reply) then
    redis.call(remove, key, '')
    redis.call(command, key, ...)
  elseif type(reply) == 'table' and reply.err then
    error(reply)
  end
end

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

local function order(priority, us)
  local score = (LOWEST_CLASS - tonumber(priority)) * CLASS_US + us - EPOCH_US
  if not (math.abs(score) < LARGEST_SCORE) then error('the record has no valid priority') end
  return int(score)
end

-- A worker that takes a wake token claims within this time. If it dies or hangs instead, the other workers must claim.
local CLAIMED_MS = 1000

-- Makes a run ready, or delays it until `due` (ms; if nil or past, the run is ready now and `delayed` is not used). The
-- control message sets the alarm of sleeping workers; for a ready run, the claim of the woken worker resets that alarm.
-- `score` is the run's `order`, which the caller computes before its first write: it fails if the record is damaged. Called
-- before the record is changed: if one of the sets is damaged, no record may say `queued` for a run in none of them.
local function enqueue(ready, pending, delayed, control, id, score, ms, due)
  if due and due > ms then
    redis.call('ZADD', delayed, int(due), id)
    redis.call('PUBLISH', control, 'due ' .. int(due - ms))
  else
    redis.call('ZADD', ready, score, id)
    local tokens = redis.pcall('RPUSH', pending, id)
    if type(tokens) ~= 'number' then
      -- Not a list any more: the next claim issues the other tokens again.
      redis.call('DEL', pending)
      tokens = redis.call('RPUSH', pending, id)
    end
    -- If the list held tokens before, no worker is asleep, and no alarm is needed.
    if tokens == 1 then redis.call('PUBLISH', control, 'due ' .. int(CLAIMED_MS)) end
  end
end

-- Due time of a run that is started at `ms`: its start time, or `ms` plus its delay; nil if it has neither.
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

-- Raises an error if the user of this connection may not execute a command. A script that lacks a right for one of its later
-- commands is not rolled back. The check costs no command. Redis before version 7 does not have it, and other servers may not
-- have it as Redis does: only its clear denial counts.
local function may(command, ...)
  local checked, allowed = pcall(function(...) return redis.acl_check_cmd(...) end, command, ...)
  if checked and allowed == false then
    error('ACL failure in script: no permissions for ' .. command .. ' ' .. tostring(...))
  end
end

local function may_append(log, channel)
  may('HSET', log, '', '') -- of the record, which every caller writes next
  may('XADD', log, '*', 'b', '')
  may('PUBLISH', channel, '')
end

-- Appends events to the stream and publishes the same bytes; returns the new last seq, which the caller must store.
local function append(log, channel, seq, count, events)
  may_append(log, channel)
  local last = tonumber(seq) + tonumber(count)
  local batch = '{"first":' .. int(tonumber(seq) + 1) .. ',"events":' .. events .. '}'
  redis.call('XADD', log, int(last) .. '-0', 'b', batch)
  redis.call('PUBLISH', channel, batch)
  return last
end

-- Tells the workers that a run has ended whose program may still run, without a worker that ends it.
local function announce_unowned(control, id)
  redis.call('PUBLISH', control, 'ended ' .. id)
end

-- How a worker is to stop a run: 1 cancels it, 2 interrupts it, 0 lets it go on.
local function stop_of(cancel, interrupt)
  return cancel == '1' and '1' or interrupt == '1' and '2' or '0'
end

-- Whether a claim is not the one that the record names. The fence alone does not tell: a Redis that has lost its last changes,
-- as after a failover to a replica that was behind, gives the same fence again. `owner` is the field `claim` of the record
-- as it was granted; if it is empty, only the fence counts.
local function is_stale(held_fence, held_claim, fence, owner)
  return held_fence ~= fence or (owner ~= '' and held_claim ~= owner)
end

-- Checks a write by a worker: it holds the run, the run is running, and the batch is the next one.
-- Returns the outcome of a refused write (nil if the write may proceed) and the fields that callers need.
local function guard(run, fence, owner, batch)
  local held = redis.call(
    'HMGET', run, 'status', 'fence', 'batch', 'seq', 'cancel', 'interrupt', 'messages', 'claimed_ms', 'worked_ms',
    'hook_events', 'hooks', 'user', 'claim'
  )
  local found = {
    status = held[1], seq = held[4], cancel = held[5] or '0', messages = tonumber(held[7]) or 0, claimed_ms = held[8],
    worked_ms = held[9], hook = { events = held[10], noted = held[11], user = held[12] },
  }
  found.stop = stop_of(found.cancel, held[6])
  if not held[1] then return 'GONE', found end
  if is_stale(held[2], held[13], fence, owner) then return 'LOST', found end
  if held[3] == batch then return 'SAME', found end
  if held[1] ~= 'running' then return 'LOST', found end
  if tonumber(batch) ~= tonumber(held[3]) + 1 then return 'REFUSED', found end
  return nil, found
end

-- Stores the pairs in `fields`, and the pairs (field, value) of ARGV from index `from` on; an empty value in ARGV removes
-- the field. Lua can unpack about 8,000 values at most, hence the chunks.
local CHUNK = 4000

local function write(run, fields, from)
  local removed = {}
  for index = from or #ARGV + 1, #ARGV, 2 do
    local name, value = ARGV[index], ARGV[index + 1]
    if value == '' then
      removed[#removed + 1] = name
    else
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  for first = 1, #fields, CHUNK do
    redis.call('HSET', run, unpack(fields, first, math.min(first + CHUNK - 1, #fields)))
  end
  for first = 1, #removed, CHUNK do
    redis.call('HDEL', run, unpack(removed, first, math.min(first + CHUNK - 1, #removed)))
  end
end

-- Usage in the argument `usage` of a write (empty for none): JSON with `add` (name -> number) and `first_day` (a day since
-- the epoch). Returns nil without usage, else also the sums of the run with it as JSON text. Called before the first write,
-- so that a damaged field stops the script early. Numbers below 2^53 are added exactly.
local function usage_of(run, usage)
  if usage == '' then return nil end
  local used = cjson.decode(usage)
  local sums, texts = cjson.decode(redis.call('HGET', run, 'usage') or '{}'), {}
  for name, more in pairs(used.add) do sums[name] = (sums[name] or 0) + more end
  for name, sum in pairs(sums) do texts[#texts + 1] = '"' .. name .. '":' .. int(sum) end
  used.sums = '{' .. table.concat(texts, ',') .. '}'
  return used
end

-- Adds usage to `fields`, and to the sums of the user's day: KEYS from index `days` on are those of `first_day` and the days
-- after it. Should the worker's clock be a day off, the nearest counts. A damaged sum must not stop the run.
local DAY_MS = 24 * 3600 * 1000

local function with_usage(fields, used, days)
  if not used then return fields end
  fields[#fields + 1] = 'usage'
  fields[#fields + 1] = used.sums
  local today = math.floor(now_ms() / DAY_MS)
  local day = KEYS[math.min(math.max(days + today - used.first_day, days), #KEYS)]
  for name, more in pairs(used.add) do redis.pcall('HINCRBY', day, name, int(more)) end
  redis.pcall('EXPIRE', day, USAGE_S)
  return fields
end

-- Adds the end of the attempt under a fence to `fields`, and its duration to the time worked on the run (`found` has both
-- fields as they are stored). Nothing if the fence is nil, as for a run that was never claimed.
local function ended(fields, fence, ms, outcome, found)
  if not fence then return fields end
  fields[#fields + 1] = 'attempt:' .. fence .. ':end'
  fields[#fields + 1] = cjson.encode({ ended_ms = ms, outcome = outcome })
  -- Claims of earlier releases have no time.
  if found.claimed_ms then
    fields[#fields + 1] = 'worked_ms'
    fields[#fields + 1] = int((tonumber(found.worked_ms) or 0) + math.max(0, ms - found.claimed_ms))
  end
  return fields
end

-- Adds the uploaded ones of a run's inputs (JSON object path -> JSON text, or nil) to `fields`, as files of the run. The
-- others stay where they are: the worker copies them before the first step.
local function with_uploads(fields, inputs)
  for path, text in pairs(inputs and cjson.decode(inputs) or {}) do
    local file = cjson.decode(text)
    if not file.from_run then
      fields[#fields + 1] = FILE .. path
      fields[#fields + 1] = cjson.encode(file.entry)
    end
  end
  return fields
end

-- The open requests in the field `requests`, a JSON list of JSON texts: decoded, each with its `text`, which is stored as it
-- came, because encoding it again could change it.
local function open_requests(list)
  local requests = {}
  for index, text in ipairs(list and list ~= '' and cjson.decode(list) or {}) do
    requests[index] = cjson.decode(text)
    requests[index].text = text
  end
  return requests
end

-- The field `requests` without those whose id is in `given`, and the first expiry of the rest (nil if there is none).
local function without(requests, given)
  local texts, soonest = {}, nil
  for _, each in ipairs(requests) do
    if not given[each.id] then
      texts[#texts + 1] = each.text
      soonest = math.min(soonest or each.expires_ms, each.expires_ms)
    end
  end
  return #texts > 0 and cjson.encode(texts) or '', soonest
end

-- The field `answers`, a JSON object id -> answer, with one more. `text` is the JSON of the answer without its time.
local function with_answer(answers, id, ms, text)
  local entry = '"' .. id .. '":{"at_ms":' .. int(ms) .. ',' .. text:sub(2) .. '}'
  return (answers and answers ~= '' and answers:sub(1, -2) .. ',' or '{') .. entry
end

local function expire(run, log, retention_s)
  redis.call('EXPIRE', run, retention_s)
  redis.call('EXPIRE', log, retention_s)
end

-- The outbox of webhooks (see infra/contract/webhooks.py). Its commands are protected: if it is damaged, a run must still end.
local function uncount(outbox_users, user)
  local left = redis.pcall('HINCRBY', outbox_users, user, -1)
  if type(left) == 'number' and left <= 0 then redis.pcall('HDEL', outbox_users, user) end
end

-- Puts an entry into the outbox; false if the outbox is full, or has too many entries of this user.
local function queue_event(outbox, outbox_users, delayed, user, entry, due_ms)
  local mine = redis.pcall('HINCRBY', outbox_users, user, 1)
  local size = redis.pcall('ZCARD', outbox)
  if type(mine) ~= 'number' or type(size) ~= 'number' or mine > MAX_USER_OUTBOX or size >= MAX_OUTBOX then
    uncount(outbox_users, user)
    return false
  end
  redis.pcall('ZADD', outbox, int(due_ms), entry)
  redis.pcall('ZADD', delayed, 'LT', int(due_ms), OVERDUE_EVENTS)
  return true
end

-- The reason for a call that a new status is, if the run has a webhook that is called for it.
local function reason_of(events, status, code)
  if not events then return nil end
  local reason = status == 'waiting' and 'waiting' or status == 'failed' and 'failed' or 'finished'
  if status == 'failed' and code and code:sub(1, 6) == 'limit_' and events:find(',limit,', 1, true) then reason = 'limit' end
  return events:find(',' .. reason .. ',', 1, true) and reason or nil
end

-- Notes the event of a new status for the webhook of a run: adds it to `fields`, which the caller writes, and to the outbox.
-- `hook` has the fields `hook_events`, `hooks` and `user` of the run; `seq` is the number of the event in the log. Returns the
-- entry, or nil.
local function note_event(run, id, hook, fields, outbox, outbox_users, delayed, seq, ms, status, code, due_ms)
  local reason = reason_of(hook.events, status, code)
  if not reason or not hook.user then return nil end
  local noted = {}
  for each in (hook.noted or ''):gmatch('%d+') do noted[#noted + 1] = each end
  if #noted >= MAX_EVENTS then
    local old = 'hook:' .. table.remove(noted, 1)
    local tries = tonumber(redis.call('HGET', run, old .. ':tries') or 0) or 0
    local names = { old, old .. ':done', old .. ':failed', old .. ':round', old .. ':lease', old .. ':token', old .. ':tries' }
    for try = math.max(1, tries - MAX_ATTEMPTS_SHOWN + 1), tries do names[#names + 1] = old .. ':' .. try end
    redis.call('HDEL', run, unpack(names))
  end
  noted[#noted + 1] = int(seq)
  local entry = hook.user .. ':' .. id .. ':' .. int(seq) .. ':' .. int(ms) .. ':1'
  local queued = queue_event(outbox, outbox_users, delayed, hook.user, entry, due_ms)
  local event = { event = reason, status = status, at_ms = ms, code = code, dropped = not queued or nil }
  for _, value in ipairs({ 'hooks', table.concat(noted, ','), 'hook:' .. int(seq), cjson.encode(event) }) do
    fields[#fields + 1] = value
  end
  return queued and entry or nil
end

-- The code of a run's error, JSON text or empty.
local function code_of(failure)
  return failure ~= '' and cjson.decode(failure).code or nil
end
