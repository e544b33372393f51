-- KEYS: pending, ready, delayed, leases, dead
-- ARGV: worker, wanted, lease_ms, run_prefix, channel_prefix, retention_s, control, version,
--   taken (0 or 1: whether the worker has taken a wake token since its last claim), process, turn (its number among the claims
--   of the process), heard (the turn of the last claim that was answered, if others were not since; else -1)
-- Answers: ms until the next lease expiry or due run (-1: none), then one flat record for each granted run.
-- The run ids are picked here, so the keys of their runs are derived here from the prefixes; one hash tag covers all.
expect(5, 12)
local pending, ready, delayed, leases, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local worker, wanted, lease_ms = ARGV[1], number(ARGV[2], 'wanted'), number(ARGV[3], 'lease_ms')
local run_prefix, channel_prefix, retention_s = ARGV[4], ARGV[5], number(ARGV[6], 'retention_s')
local control, version, taken = ARGV[7], number(ARGV[8], 'version'), number(ARGV[9], 'taken')
local process, turn, heard = ARGV[10], number(ARGV[11], 'turn'), number(ARGV[12], 'heard')
local NEWER_MS = 1000
local SWEEP = 100
local EXPIRED = '{"code":"expired","message":"no worker began it within its queue_ttl_s"}'

local us = now_us()
local ms = math.floor(us / 1000)

local function log_of(id)
  return run_prefix .. id .. ':log'
end

-- Whether a record is of a newer release: it is left for a worker that knows what is in it.
local function newer(held)
  return tonumber(held) > version
end

local function finish_lost(id, run, fence, seq, outcome, status, error_json)
  local data = '{"status":"' .. status .. '"' .. (error_json and ',"error":' .. error_json or '') .. '}'
  local last = append(log_of(id), channel_prefix .. id, seq, 1, event(ms, 'run.finished', data))
  local fields = { 'status', status, 'seq', int(last), 'finished_ms', int(ms), 'error', error_json or '', 'worker', '' }
  write(run, ended(fields, fence, ms, outcome))
  expire(run, log_of(id), retention_s)
  if status == 'failed' then redis.call('ZADD', dead, int(ms), id) end
end

-- A run that its worker does not work on: cancelled if that was asked for, dead if its attempts are used up, else ready.
local function recover(id, outcome, counts)
  local run = run_prefix .. id
  local found =
    redis.call('HMGET', run, 'status', 'attempt', 'max_attempts', 'cancel', 'seq', 'priority', 'worker', 'fence', 'v')
  local status, attempt, max_attempts, cancel, seq, priority = found[1], found[2], found[3], found[4], found[5], found[6]
  local fence = found[8]
  if status == 'running' and newer(found[9]) then
    redis.call('ZADD', leases, int(ms + NEWER_MS), id)
    return
  end
  redis.call('ZREM', leases, id)
  if status ~= 'running' then return end
  if cancel == '1' then return finish_lost(id, run, fence, seq, outcome, 'cancelled') end
  if counts and tonumber(attempt) >= tonumber(max_attempts) then
    local message = 'the worker ' .. found[7] .. ' was lost in attempt ' .. attempt .. ' of ' .. max_attempts
    return finish_lost(id, run, fence, seq, outcome, 'failed', '{"code":"worker_lost","message":"' .. message .. '"}')
  end
  local data = cjson.encode({ reason = outcome, worker = found[7], attempt = tonumber(attempt) })
  local last = append(log_of(id), channel_prefix .. id, seq, 1, event(ms, 'run.requeued', data))
  local fields = { 'status', 'queued', 'seq', int(last), 'queued_ms', int(ms), 'worker', '' }
  if not counts then
    fields[#fields + 1] = 'attempt'
    fields[#fields + 1] = int(tonumber(attempt) - 1)
  end
  write(run, ended(fields, fence, ms, outcome))
  redis.call('ZADD', ready, order(priority, counts and us or EPOCH_US), id)
end

local function expired(id)
  recover(id, 'lease_expired', true)
end

-- What was granted in an answer that never came nobody has begun: it is the next of its class again, and the attempt does
-- not count. It does if that happens to a run twice in a row and it was alone the second time: its record may be what no
-- answer can carry. Just the turns between `heard` and this one are meant: this call may itself be executed late, when its
-- worker has begun what came after.
local function take_back()
  for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    local held = redis.call('HMGET', run_prefix .. id, 'claim', 'fence')
    local by, of, together = (held[1] or ''):match('^(.*):(%d+):(%d+)$')
    if by == process and heard < tonumber(of) and tonumber(of) < turn then
      local before = redis.call('HGET', run_prefix .. id, 'attempt:' .. int(tonumber(held[2]) - 1) .. ':end')
      recover(id, 'unanswered', together == '1' and before and cjson.decode(before).outcome == 'unanswered')
    end
  end
end

local function promote(id)
  redis.call('ZREM', delayed, id)
  local priority = redis.call('HGET', run_prefix .. id, 'priority')
  if priority then redis.call('ZADD', ready, order(priority, us), id) end
end

-- Hands each member of the set that is due to `act`; answers the score of the first one left, or nil.
local function sweep(set, act)
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  if not first[2] or tonumber(first[2]) > ms then return tonumber(first[2] or nil) end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', int(ms), 'LIMIT', 0, SWEEP)) do act(id) end
  return tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2] or nil)
end

local next_lease, next_due

local function grant(id, together)
  local run = run_prefix .. id
  local record = redis.call('HGETALL', run)
  if #record == 0 then return nil end
  local held = {}
  for index = 1, #record, 2 do held[record[index]] = record[index + 1] end
  if held.status ~= 'queued' then return nil end
  if newer(held.v) then
    redis.call('ZADD', delayed, int(ms + NEWER_MS), id)
    if not next_due or ms + NEWER_MS < next_due then next_due = ms + NEWER_MS end
    return nil
  end
  local queued_ms = tonumber(held.queued_ms)
  local due = math.max(queued_ms, due_of(queued_ms, held.start_at_ms, held.delay_ms) or 0)
  if held.queue_ttl_ms and held.fence == '0' and ms > due + tonumber(held.queue_ttl_ms) then
    finish_lost(id, run, nil, held.seq, nil, 'failed', EXPIRED)
    return nil
  end
  local fence, attempt = tonumber(held.fence) + 1, tonumber(held.attempt) + 1
  local kind = fence == 1 and 'run.started' or 'run.resumed'
  local data = cjson.encode({ worker = worker, attempt = attempt, fence = fence })
  local last = append(log_of(id), channel_prefix .. id, held.seq, 1, event(ms, kind, data))
  local changed = {
    'status', 'running', 'worker', worker, 'claim', process .. ':' .. int(turn) .. ':' .. together,
    'fence', int(fence), 'attempt', int(attempt), 'batch', '0', 'seq', int(last), 'started_ms', held.started_ms or int(ms),
    'attempt:' .. int(fence), cjson.encode({ attempt = attempt, worker = worker, started_ms = ms }),
  }
  redis.call('HSET', run, unpack(changed))
  redis.call('ZADD', leases, int(ms + lease_ms), id)
  for _, value in ipairs(changed) do record[#record + 1] = value end
  return record
end

if heard >= 0 then take_back() end
next_lease = sweep(leases, expired)
next_due = sweep(delayed, promote)

local granted = {}
local picked = wanted > 0 and redis.call('ZPOPMIN', ready, wanted) or {}
for index = 1, #picked, 2 do
  granted[#granted + 1] = grant(picked[index], #picked / 2)
end

-- As many wake tokens as ready runs: none if all were picked, else what is missing or too much is made good.
if #picked < 2 * wanted then
  -- The token of a run that is alone is the one that was taken. If one is left all the same, it wakes somebody, who finds
  -- no run and comes by here.
  if taken == 0 or #picked ~= 2 then redis.call('DEL', pending) end
else
  local missing = redis.call('ZCARD', ready) - redis.call('LLEN', pending)
  if missing < 0 then redis.call('LPOP', pending, -missing) end
  if missing > 0 then redis.call('RPUSH', pending, unpack(redis.call('ZRANGE', ready, 0, math.min(missing, 1000) - 1))) end
end

local soonest = next_lease
if next_due and (not soonest or next_due < soonest) then soonest = next_due end
if #granted > 0 and (not soonest or ms + lease_ms < soonest) then soonest = ms + lease_ms end
local next_ms = soonest and math.max(0, soonest - ms) or -1
-- Workers that fell asleep before this lease was given must look when it ends: it is all that tells them of a lost worker.
if soonest then redis.call('PUBLISH', control, 'next ' .. int(next_ms)) end
return { next_ms, unpack(granted) }
