-- KEYS: run, log, ready, pending, delayed, waiting, outbox, outbox_users
-- ARGV: id, channel, control, retention_s (number)
-- Reply: outcome, status, entry of the event in the outbox (if there is one). A running run is only asked to stop: its worker ends it, or the expiry of its lease does.

local found = redis.call('HMGET', run, 'status', 'seq', 'cancel', 'hook_events', 'hooks', 'user')
local status, seq, cancel = found[1], found[2], found[3]
if not status then return { 'GONE' } end
if status == 'cancelled' then return { 'SAME', status } end
if not allowed(status, 'cancelled') then return { 'REFUSED', status } end
if status == 'running' then
  redis.call('HSET', run, 'cancel', '1')
  redis.call('PUBLISH', control, 'cancel ' .. id)
  return { cancel == '1' and 'SAME' or 'OK', status }
end
local ms = now_ms()
local last = append(log, channel, seq, 1, event(ms, 'run.finished', '{"status":"cancelled"}'))
local fields = { 'status', 'cancelled', 'cancel', '1', 'seq', int(last), 'finished_ms', int(ms) }
local hook = { events = found[4], noted = found[5], user = found[6] }
local entry = note_event(
  run, id, hook, fields, outbox, outbox_users, delayed, last, ms, 'cancelled', nil, ms + GRACE_MS
)
write(run, fields)
if redis.call('ZREM', ready, id) == 1 then redis.call('LREM', pending, 1, id) end
redis.call('ZREM', delayed, id)
if status == 'waiting' then redis.call('ZREM', waiting, id) end
expire(run, log, retention_s)
return { 'OK', 'cancelled', entry or '' }
