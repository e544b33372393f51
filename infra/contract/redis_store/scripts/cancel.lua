-- KEYS: run, log, ready, pending, delayed, waiting, leases, outbox, outbox_users
-- ARGV: id, channel, control, retention_s (number)
-- Reply: outcome, status, entry of the event in the outbox (if there is one). A running run is only asked to stop: its worker ends it, or the expiry of its lease does.

-- The worker of a run whose program outlives workers may be dead, so the lease of such a run is shortened to this time. A
-- living worker renews the lease as soon as it has heard of the cancel.
local CANCEL_LEASE_MS = 2000

local found = redis.call(
  'HMGET', run, 'status', 'seq', 'cancel', 'hook_events', 'hooks', 'user', JOURNAL_EXECUTION, JOURNAL_SESSION
)
local status, seq, cancel, program = found[1], found[2], found[3], found[7] or found[8]
if not status then return { 'GONE' } end
if status == 'cancelled' then return { 'SAME', status } end
if not allowed(status, 'cancelled') then return { 'REFUSED', status } end
if status == 'running' then
  even_if_full('HDEL', 'HSET', run, 'cancel', '1')
  redis.call('PUBLISH', control, 'cancel ' .. id)
  if program then
    -- XX: a run without a lease has left the queue, and must not come back.
    redis.call('ZADD', leases, 'XX', 'LT', int(now_ms() + CANCEL_LEASE_MS), id)
    redis.call('PUBLISH', control, 'recover ' .. int(CANCEL_LEASE_MS))
  end
  return { cancel == '1' and 'SAME' or 'OK', status }
end
-- A write that takes no memory, so that the others are executed also while the memory is full: the run can be deleted then.
redis.call('ZREM', ready, '')
local ms = now_ms()
local last = append(log, channel, seq, 1, event(ms, 'run.finished', '{"status":"cancelled"}'))
local fields = { 'status', 'cancelled', 'cancel', '1', 'seq', int(last), 'finished_ms', int(ms) }
local hook = { events = found[4], noted = found[5], user = found[6] }
local entry = note_event(
  run, id, hook, fields, outbox, outbox_users, delayed, last, ms, 'cancelled', nil, ms + GRACE_MS
)
write(run, fields)
-- Protected: the run has ended, whatever these keys hold. No claim grants a run that is not queued.
if redis.call('ZREM', ready, id) == 1 then redis.pcall('LREM', pending, 1, id) end
redis.pcall('ZREM', delayed, id)
if status == 'waiting' then redis.pcall('ZREM', waiting, id) end
expire(run, log, retention_s)
if program then announce_unowned(control, id) end
return { 'OK', 'cancelled', entry or '' }
