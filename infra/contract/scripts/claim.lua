-- KEYS: pending, ready, delayed, leases, dead
-- ARGV: worker, wanted, lease_ms, run_prefix, channel_prefix, retention_s, control, version
-- Answers: ms until the next lease expiry or due run (-1: none), then one flat record for each granted run.
-- The run ids are picked here, so the keys of their runs are derived here from the prefixes; one hash tag covers all.
expect(5, 8)
local pending, ready, delayed, leases, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local worker, wanted, lease_ms = ARGV[1], number(ARGV[2], 'wanted'), number(ARGV[3], 'lease_ms')
local run_prefix, channel_prefix, retention_s = ARGV[4], ARGV[5], number(ARGV[6], 'retention_s')
local control, version = ARGV[7], number(ARGV[8], 'version')
local NEWER_MS = 1000
local SWEEP = 100
local EXPIRED = '{"code":"expired","message":"no worker began it within its queue_ttl_s"}'

local us = now_us()
local ms = math.floor(us / 1000)

local function log_of(id)
  return run_prefix .. id .. ':log'
end

local function finish_lost(id, run, fence, seq, status, error_json)
  local data = '{"status":"' .. status .. '"' .. (error_json and ',"error":' .. error_json or '') .. '}'
  local last = append(log_of(id), channel_prefix .. id, seq, 1, event(ms, 'run.finished', data))
  local fields = { 'status', status, 'seq', int(last), 'finished_ms', int(ms), 'error', error_json or '', 'worker', '' }
  write(run, ended(fields, fence, ms, 'lease_expired'))
  expire(run, log_of(id), retention_s)
  if status == 'failed' then redis.call('ZADD', dead, int(ms), id) end
end

-- A run whose worker let the lease expire: cancelled if that was asked for, dead if its attempts are used up, else ready.
local function recover(id)
  local run = run_prefix .. id
  local found = redis.call('HMGET', run, 'status', 'attempt', 'max_attempts', 'cancel', 'seq', 'priority', 'worker', 'fence')
  local status, attempt, max_attempts, cancel, seq, priority = found[1], found[2], found[3], found[4], found[5], found[6]
  local fence = found[8]
  redis.call('ZREM', leases, id)
  if status ~= 'running' then return end
  if cancel == '1' then return finish_lost(id, run, fence, seq, 'cancelled') end
  if tonumber(attempt) >= tonumber(max_attempts) then
    local message = 'the worker was lost in attempt ' .. attempt .. ' of ' .. max_attempts
    return finish_lost(id, run, fence, seq, 'failed', '{"code":"worker_lost","message":"' .. message .. '"}')
  end
  local data = cjson.encode({ reason = 'lease_expired', worker = found[7], attempt = tonumber(attempt) })
  local last = append(log_of(id), channel_prefix .. id, seq, 1, event(ms, 'run.requeued', data))
  write(run, ended({ 'status', 'queued', 'seq', int(last), 'queued_ms', int(ms), 'worker', '' }, fence, ms, 'lease_expired'))
  redis.call('ZADD', ready, order(priority, us), id)
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

local function grant(id)
  local run = run_prefix .. id
  local record = redis.call('HGETALL', run)
  if #record == 0 then return nil end
  local held = {}
  for index = 1, #record, 2 do held[record[index]] = record[index + 1] end
  if held.status ~= 'queued' then return nil end
  if tonumber(held.v) > version then -- of a newer release: left for a worker that knows what is in it
    redis.call('ZADD', delayed, int(ms + NEWER_MS), id)
    if not next_due or ms + NEWER_MS < next_due then next_due = ms + NEWER_MS end
    return nil
  end
  local due = due_of(tonumber(held.queued_ms), held.start_at_ms, held.delay_ms) or tonumber(held.queued_ms)
  if held.queue_ttl_ms and held.fence == '0' and ms > due + tonumber(held.queue_ttl_ms) then
    finish_lost(id, run, nil, held.seq, 'failed', EXPIRED)
    return nil
  end
  local fence, attempt = tonumber(held.fence) + 1, tonumber(held.attempt) + 1
  local kind = fence == 1 and 'run.started' or 'run.resumed'
  local data = cjson.encode({ worker = worker, attempt = attempt, fence = fence })
  local last = append(log_of(id), channel_prefix .. id, held.seq, 1, event(ms, kind, data))
  local changed = {
    'status', 'running', 'worker', worker, 'fence', int(fence), 'attempt', int(attempt), 'batch', '0',
    'seq', int(last), 'started_ms', held.started_ms or int(ms),
    'attempt:' .. int(fence), cjson.encode({ attempt = attempt, worker = worker, started_ms = ms }),
  }
  redis.call('HSET', run, unpack(changed))
  redis.call('ZADD', leases, int(ms + lease_ms), id)
  for _, value in ipairs(changed) do record[#record + 1] = value end
  return record
end

next_lease = sweep(leases, recover)
next_due = sweep(delayed, promote)

local granted = {}
local picked = wanted > 0 and redis.call('ZPOPMIN', ready, wanted) or {}
for index = 1, #picked, 2 do
  granted[#granted + 1] = grant(picked[index])
end

-- As many wake tokens as ready runs: none if all were picked, else what is missing or too much is made good.
if #picked < 2 * wanted then
  redis.call('DEL', pending)
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
