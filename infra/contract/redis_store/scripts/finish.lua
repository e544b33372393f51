-- KEYS: run, log, leases, dead, outbox, outbox_users, delayed, then days
-- ARGV: id, fence, owner, batch (digits), count (number), events, channel, status, result, failure, retention_s (number),
--   read (number), usage, then field, value
-- Reply: outcome, seq of the last event, entry of the event in the outbox (empty if there is none). The last event is the terminal one. REFUSED if the run is to succeed, and has messages
-- after number `read`.

local refusal, found = guard(run, fence, owner, batch)
if refusal then return { refusal, tonumber(found.seq or 0) } end
if not TERMINAL[status] or not allowed(found.status, status) then return { 'REFUSED', tonumber(found.seq) } end
if status == 'succeeded' and found.messages > read then return { 'REFUSED', tonumber(found.seq) } end
local used, code = usage_of(run, usage), found.hook.events and code_of(failure)
local ms = now_ms()
local last = append(log, channel, found.seq, count, events)
local fields = {
  'status', status, 'batch', batch, 'seq', int(last), 'finished_ms', int(ms), 'result', result, 'error', failure,
}
local entry = note_event(
  run, id, found.hook, fields, outbox, outbox_users, delayed, last, ms, status, code, ms + GRACE_MS
)
write(run, with_usage(ended(fields, fence, ms, status, found), used, MORE_KEYS), MORE)
-- Protected: the run has ended, whatever the leases and the list of dead letters hold.
redis.pcall('ZREM', leases, id)
expire(run, log, retention_s)
if status == 'failed' then
  redis.pcall('ZADD', dead, int(ms), id)
  redis.pcall('ZREMRANGEBYSCORE', dead, '-inf', int(ms - retention_s * 1000))
end
return { 'OK', last, entry or '' }
