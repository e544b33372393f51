-- KEYS: pending, ready, delayed, leases, dead, unreadable, workers, waiting, outbox, outbox_users
-- ARGV: worker, wanted (number), lease_ms (number), run_prefix, channel_prefix, retention_s (number), control,
--   version (number), token_taken (number), process, claim_seq (number), last_acked (number), alive_ms (number),
--   then dead process
-- Reply: ms until the next lease expiry or due run (-1 if there is none), a flat list of run ids that were set aside with
-- the reason for each, a flat list of names and numbers (see `count`), 1 if the outbox of webhooks has entries that nobody
-- has published in time (else 0), then one flat record for each granted run.
-- `token_taken` is 1 if the worker has taken a wake token since its last claim. `claim_seq` is the number of this claim
-- within `process`; `last_acked` is the number of the last claim whose reply arrived if later replies were lost, else -1.
-- `alive_ms` is how long `process` counts as alive; 0 if it has been noted recently.
-- The dead processes are earlier workers on this host of which `process` knows that they have ended.
-- The run ids are picked here, so the keys of their runs are derived here from the prefixes; one hash tag covers them all.

local NEWER_MS = 1000
local MAX_WAIT_MS = 1000000000000000
local SWEEP = 100
local EXPIRED = '{"code":"expired","message":"no worker began it within its queue_ttl_s"}'

local us = now_us()
local ms = math.floor(us / 1000)

-- Numbers for the metrics of whoever claims. They cost no command: `ready` is the number of runs that are left ready,
-- `recovered:REASON` of runs taken from lost workers, `ended:STATUS:CODE` of runs that this claim has ended.
local counts = {}

local function count(name)
  counts[name] = (counts[name] or 0) + 1
end

local function log_of(id)
  return run_prefix .. id .. ':log'
end

-- A run whose record is damaged must not take the runs beside it along. Each step on one run is executed by `isolated`: if the
-- step raises an error, the run leaves the queue and is listed in `unreadable`, where an operator finds it. A step reads and
-- computes before its first write, so nothing is half done. It adds the run to another set first: if that set is damaged, the
-- run stays where it is.
local MAX_UNREADABLE = 10000
local set_aside = {}

local function isolated(step, id, ...)
  local ok, result = pcall(step, id, ...)
  if not ok and is_full(result) then
    -- The record is not damaged. After a write that takes no memory, Redis executes the step.
    redis.call('ZREM', leases, '')
    ok, result = pcall(step, id, ...)
  end
  if ok then return result end
  for _, set in ipairs({ ready, delayed, leases }) do
    redis.call('ZREM', set, id)
  end
  -- Protected: if one of these keys is damaged as well, the runs beside this one must still be granted.
  redis.pcall('ZREM', waiting, id)
  redis.pcall('ZREMRANGEBYSCORE', unreadable, '-inf', int(ms - retention_s * 1000))
  redis.pcall('ZADD', unreadable, int(ms), id)
  redis.pcall('ZREMRANGEBYRANK', unreadable, 0, -MAX_UNREADABLE - 1)
  expire(run_prefix .. id, log_of(id), retention_s)
  set_aside[#set_aside + 1] = id
  set_aside[#set_aside + 1] = type(result) == 'table' and result.err or tostring(result)
end

-- Raises an error for a record without a valid status: a run that has left its set without notice would be listed nowhere.
local function check_status(id, status)
  if not NEXT[status] and redis.call('EXISTS', run_prefix .. id) == 1 then error('the record has no valid status') end
end

-- A record of a newer release is left to a worker that can read it.
local function newer(held)
  return tonumber(held) > version
end

local events_due = 0

-- `code`: of the error, if the run fails. `hook`: as in `note_event`. The event is due now, and the caller of this claim is
-- told so.
local function finish_lost(id, run, fence, seq, outcome, status, error_json, times, code, hook)
  local data = '{"status":"' .. status .. '"' .. (error_json and ',"error":' .. error_json or '') .. '}'
  local last = append(log_of(id), channel_prefix .. id, seq, 1, event(ms, 'run.finished', data))
  local fields = { 'status', status, 'seq', int(last), 'finished_ms', int(ms), 'error', error_json or '', 'worker', '' }
  if note_event(run, id, hook, fields, outbox, outbox_users, delayed, last, ms, status, code, ms) then events_due = 1 end
  write(run, ended(fields, fence, ms, outcome, times))
  expire(run, log_of(id), retention_s)
  if status == 'failed' then redis.pcall('ZADD', dead, int(ms), id) end
  count('ended:' .. status .. ':' .. (code or ''))
end

-- Recovers a run whose worker no longer works on it: it is cancelled if a cancel was requested, failed if its attempts are
-- used up, else ready again.
local function recover(id, outcome, counts)
  local run = run_prefix .. id
  local found = redis.call(
    'HMGET', run, 'status', 'attempt', 'max_attempts', 'cancel', 'seq', 'priority', 'worker', 'fence', 'v', 'claimed_ms',
    'worked_ms', JOURNAL_EXECUTION, 'hook_events', 'hooks', 'user', JOURNAL_SESSION
  )
  local status, attempt, max_attempts, cancel, seq, priority = found[1], found[2], found[3], found[4], found[5], found[6]
  local fence, times = found[8], { claimed_ms = found[10], worked_ms = found[11] }
  local program = found[12] or found[16]
  local hook = { events = found[13], noted = found[14], user = found[15] }
  if status == 'running' and newer(found[9]) then
    redis.call('ZADD', leases, int(ms + NEWER_MS), id)
    return
  end
  if status ~= 'running' then
    check_status(id, status)
    redis.call('ZREM', leases, id)
    return
  end
  if cancel == '1' then
    redis.call('ZREM', leases, id)
    finish_lost(id, run, fence, seq, outcome, 'cancelled', nil, times, nil, hook)
    if program then announce_unowned(control, id) end
    return count('recovered:' .. outcome)
  end
  if counts and tonumber(attempt) >= tonumber(max_attempts) then
    local message = 'the worker ' .. found[7] .. ' was lost in attempt ' .. attempt .. ' of ' .. max_attempts
    local failure = '{"code":"worker_lost","message":' .. cjson.encode(message) .. '}'
    redis.call('ZREM', leases, id)
    finish_lost(id, run, fence, seq, outcome, 'failed', failure, times, 'worker_lost', hook)
    if program then announce_unowned(control, id) end
    return count('recovered:' .. outcome)
  end
  local data = cjson.encode({ reason = outcome, worker = found[7], attempt = tonumber(attempt) })
  local score = order(priority, counts and us or EPOCH_US)
  redis.call('ZADD', ready, score, id)
  redis.call('ZREM', leases, id)
  local last = append(log_of(id), channel_prefix .. id, seq, 1, event(ms, 'run.requeued', data))
  local fields = { 'status', 'queued', 'seq', int(last), 'queued_ms', int(ms), 'worker', '' }
  if not counts then
    fields[#fields + 1] = 'attempt'
    fields[#fields + 1] = int(tonumber(attempt) - 1)
  end
  write(run, ended(fields, fence, ms, outcome, times))
  count('recovered:' .. outcome)
end

local function expired(id)
  recover(id, 'lease_expired', true)
end

-- Undoes claims whose replies were lost. No worker has begun their runs, so they become the first of their priority class
-- again, and the attempt does not count. The attempt does count if this happens to a run twice in a row and the run was
-- granted alone the second time: its record may be too large for a reply. Only the claims between `last_acked` and this one
-- are undone: this call may itself be executed late, after its worker has begun runs of a later claim.
local function take_back(id)
  local held = redis.call('HMGET', run_prefix .. id, 'claim', 'fence')
  local by, of, together = (held[1] or ''):match('^(.*):(%d+):(%d+)$')
  if by == process and last_acked < tonumber(of) and tonumber(of) < claim_seq then
    local before = redis.call('HGET', run_prefix .. id, 'attempt:' .. int(tonumber(held[2]) - 1) .. ':end')
    recover(id, 'unanswered', together == '1' and before and cjson.decode(before).outcome == 'unanswered')
  end
end

-- Recovers the run of a worker process that has ended, without waiting for its lease. The attempt counts. A run whose previous
-- attempt was lost too waits for its lease, unless it is cancelled: if it kills its workers, it must not use up the attempts of
-- the runs beside it within seconds.
local dead_processes = {}
for index = MORE, #ARGV do
  dead_processes[ARGV[index]] = true
end

local function recover_from_dead(id)
  local held = redis.call('HMGET', run_prefix .. id, 'claim', 'fence', 'cancel')
  local by = (held[1] or ''):match('^(.*):%d+:%d+$')
  if not dead_processes[by or ''] then return end
  local before = redis.call('HGET', run_prefix .. id, 'attempt:' .. int(tonumber(held[2]) - 1) .. ':end')
  local outcome = before and cjson.decode(before).outcome
  if held[3] == '1' or (outcome ~= 'lease_expired' and outcome ~= 'worker_restarted') then
    recover(id, 'worker_restarted', true)
  end
end

-- Deals with the expired requests of a waiting run: one fails the run, or each gets an answer that says so, and the run is
-- ready again once no request is open.
local function expire_requests(id)
  local run = run_prefix .. id
  local found = redis.call(
    'HMGET', run, 'status', 'priority', 'seq', 'requests', 'answers', 'v', 'hook_events', 'hooks', 'user'
  )
  local status, seq, answers = found[1], found[3], found[5]
  if status ~= 'waiting' then
    check_status(id, status)
    redis.call('ZREM', waiting, id)
    return
  end
  if newer(found[6]) then
    redis.call('ZADD', waiting, int(ms + NEWER_MS), id)
    return
  end
  local requests, given, events = open_requests(found[4]), {}, {}
  for _, each in ipairs(requests) do
    if each.expires_ms <= ms then
      if each.on_expiry ~= 'deny' then
        local code, message = each.kind .. '_expired', 'nobody answered the request ' .. each.id .. ' before it expired'
        redis.call('ZREM', waiting, id)
        local hook = { events = found[7], noted = found[8], user = found[9] }
        local failure = cjson.encode({ code = code, message = message })
        return finish_lost(id, run, nil, seq, nil, 'failed', failure, nil, code, hook)
      end
      given[each.id] = true
      answers = with_answer(answers, each.id, ms, '{"expired":true}')
      events[#events + 1] = event(ms, 'run.input', cjson.encode({ request = each.id, decision = 'expired' }))
    end
  end
  local rest, soonest = without(requests, given)
  local score = order(found[2], us)
  if not soonest then redis.call('ZADD', ready, score, id) end
  for _, each in ipairs(events) do seq = append(log_of(id), channel_prefix .. id, seq, 1, each) end
  local fields = { 'seq', int(tonumber(seq)), 'answers', answers or '', 'requests', rest }
  if soonest then
    write(run, fields)
    redis.call('ZADD', waiting, int(soonest), id)
    return
  end
  for _, value in ipairs({ 'status', 'queued', 'queued_ms', int(ms) }) do fields[#fields + 1] = value end
  write(run, fields)
  redis.call('ZREM', waiting, id)
end

local sweep

local function promote(id)
  if id == EXPIRIES then
    local soonest = sweep(waiting, expire_requests)
    if soonest then redis.call('ZADD', delayed, int(soonest), id) else redis.call('ZREM', delayed, id) end
    return
  end
  if id == OVERDUE_EVENTS then
    -- The caller takes the entries, if it can publish any. If it cannot, or dies, a later claim says so again.
    redis.call('ZADD', delayed, int(ms + AGAIN_MS), id)
    events_due = 1
    return
  end
  local priority = redis.call('HGET', run_prefix .. id, 'priority')
  if not priority and redis.call('EXISTS', run_prefix .. id) == 1 then error('the record has no priority') end
  if priority then redis.call('ZADD', ready, order(priority, us), id) end
  redis.call('ZREM', delayed, id)
end

-- Executes `step` for each due member of the set; returns the score of the first remaining member, or nil.
function sweep(set, step)
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  if not first[2] or tonumber(first[2]) > ms then return tonumber(first[2] or nil) end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', int(ms), 'LIMIT', 0, SWEEP)) do isolated(step, id) end
  return tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2] or nil)
end

local next_lease, next_due

local function grant(id, together)
  local run = run_prefix .. id
  local record = redis.call('HGETALL', run)
  if #record == 0 then return nil end
  local held = {}
  for index = 1, #record, 2 do held[record[index]] = record[index + 1] end
  if not NEXT[held.status] then error('the record has no valid status') end
  if held.id ~= id then error('the record has no id, or that of another run') end
  if held.status ~= 'queued' then return nil end
  if newer(held.v) then
    redis.call('ZADD', delayed, int(ms + NEWER_MS), id)
    if not next_due or ms + NEWER_MS < next_due then next_due = ms + NEWER_MS end
    return nil
  end
  local queued_ms = tonumber(held.queued_ms)
  local due = math.max(queued_ms, due_of(queued_ms, held.start_at_ms, held.delay_ms) or 0)
  if held.queue_ttl_ms and held.fence == '0' and ms > due + tonumber(held.queue_ttl_ms) then
    local hook = { events = held.hook_events, noted = held.hooks, user = held.user }
    finish_lost(id, run, nil, held.seq, nil, 'failed', EXPIRED, nil, 'expired', hook)
    return nil
  end
  local fence, attempt = tonumber(held.fence) + 1, tonumber(held.attempt) + 1
  local kind = fence == 1 and 'run.started' or 'run.resumed'
  local data = cjson.encode({ worker = worker, attempt = attempt, fence = fence })
  local last = append(log_of(id), channel_prefix .. id, held.seq, 1, event(ms, kind, data))
  local changed = {
    'status', 'running', 'worker', worker, 'claim', process .. ':' .. int(claim_seq) .. ':' .. together,
    'fence', int(fence), 'attempt', int(attempt), 'batch', '0', 'seq', int(last), 'started_ms', held.started_ms or int(ms),
    'claimed_ms', int(ms),
    'attempt:' .. int(fence), cjson.encode({ attempt = attempt, worker = worker, started_ms = ms }),
  }
  redis.call('HSET', run, unpack(changed))
  redis.call('ZADD', leases, int(ms + lease_ms), id)
  for _, value in ipairs(changed) do record[#record + 1] = value end
  return record
end

-- An error for a lack of rights is no damage of a record. Each command has as many arguments as it takes: a server may raise
-- an error for others.
local any_run = run_prefix .. 'run_'
for _, command in ipairs({ 'HGETALL', 'EXISTS' }) do may(command, any_run) end
for _, command in ipairs({ 'HMGET', 'HGET', 'HDEL', 'EXPIRE' }) do may(command, any_run, '') end
may('HSET', any_run, '', '')
for _, set in ipairs({ ready, delayed, leases, waiting }) do may('ZADD', set, '', '') end
may('ZREM', ready, '')
may('EXPIRE', log_of('run_'), '')
may_append(log_of('run_'), channel_prefix .. 'run_')
may('PUBLISH', control, '')

-- Notes that this process asks for work. Others that are no longer alive are removed only when a process joins, so that this
-- costs one command. No run depends on this set: if it is damaged, the claim goes on.
local MAX_WORKERS = 10000
if alive_ms > 0 and redis.pcall('ZADD', workers, int(ms + alive_ms), process ~= '' and process or worker) == 1 then
  redis.pcall('ZREMRANGEBYSCORE', workers, '-inf', int(ms))
  redis.pcall('ZREMRANGEBYRANK', workers, 0, -MAX_WORKERS - 1)
  -- A worker of an earlier release removes the members that stand for expiries and for events of webhooks.
  for set, member in pairs({ [waiting] = EXPIRIES, [outbox] = OVERDUE_EVENTS }) do
    local first = redis.pcall('ZRANGE', set, 0, 0, 'WITHSCORES')
    if first[2] then redis.pcall('ZADD', delayed, 'LT', first[2], member) end
  end
end
if #ARGV >= MORE then redis.pcall('ZREM', workers, unpack(ARGV, MORE)) end

if last_acked >= 0 then
  for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do isolated(take_back, id) end
end
if #ARGV >= MORE then
  for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do isolated(recover_from_dead, id) end
end
next_lease = sweep(leases, expired)
next_due = sweep(delayed, promote)

local granted = {}
local picked = wanted > 0 and redis.call('ZPOPMIN', ready, wanted) or {}
for index = 1, #picked, 2 do
  granted[#granted + 1] = isolated(grant, picked[index], #picked / 2)
end

-- Makes the number of wake tokens equal to the number of ready runs: deletes all tokens if every run was picked, else adds
-- or removes the difference.
counts.ready = 0
if #picked < 2 * wanted then
  -- If one run was picked, its token is the one that this worker has taken, and the DEL can be saved. Should a token be left
  -- all the same, it wakes a worker, whose claim finds no run and deletes the token here.
  if token_taken == 0 or #picked ~= 2 then redis.call('DEL', pending) end
else
  counts.ready = redis.call('ZCARD', ready)
  local tokens = redis.pcall('LLEN', pending)
  if type(tokens) ~= 'number' then
    -- Not a list any more: every token is issued again.
    redis.call('DEL', pending)
    tokens = 0
  end
  local missing = counts.ready - tokens
  if missing < 0 then redis.call('LPOP', pending, -missing) end
  if missing > 0 then redis.call('RPUSH', pending, unpack(redis.call('ZRANGE', ready, 0, math.min(missing, 1000) - 1))) end
end

local soonest = next_lease
if next_due and (not soonest or next_due < soonest) then soonest = next_due end
if #granted > 0 and (not soonest or ms + lease_ms < soonest) then soonest = ms + lease_ms end
-- A damaged score may be infinite, which no integer of a reply can be.
local next_ms = soonest and math.min(math.max(0, soonest - ms), MAX_WAIT_MS) or -1
-- Workers that fell asleep before this lease was granted must wake when it expires: no other message reports a lost worker.
if soonest then redis.call('PUBLISH', control, 'next ' .. int(next_ms)) end
local counted = {}
for name, number in pairs(counts) do
  counted[#counted + 1] = name
  counted[#counted + 1] = number
end
return { next_ms, set_aside, counted, events_due, unpack(granted) }
