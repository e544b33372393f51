-- KEYS: run, log, leases, waiting, delayed, outbox, outbox_users, then days
-- ARGV: id, fence, owner, batch (digits), count (number), events, channel, version (digits), requests, expires_ms (number), control,
--   usage, then field, value
-- Reply: outcome, seq of the last event, entry of the event in the outbox (empty if there is none). The run holds no lease until its requests are answered or expired, or it is
-- cancelled; the attempt does not count. `requests` is a JSON list of JSON texts, `expires_ms` the first of their expiries.
-- Answers of earlier requests are removed, unless the run waits because of an interrupt: it may not have read them yet. REFUSED if a cancel was requested: nobody would end the waiting run.

local refusal, found = guard(run, fence, owner, batch)
if refusal then return { refusal, tonumber(found.seq or 0) } end
if found.cancel == '1' or not allowed(found.status, 'waiting') then return { 'REFUSED', tonumber(found.seq) } end
local used = usage_of(run, usage)
local ms = now_ms()
local attempt = tonumber(redis.call('HGET', run, 'attempt')) - 1
local last = append(log, channel, found.seq, count, events)
-- The version, because an earlier release, which could have created the run, knows nothing of requests.
local fields = {
  'v', version, 'status', 'waiting', 'batch', batch, 'seq', int(last), 'worker', '', 'attempt', int(attempt),
  'requests', requests, 'waiting_ms', int(ms), 'interrupt', '0',
}
-- Bounded, because a person may interrupt a run again and again before a worker reads anything.
if found.stop ~= '2' or redis.call('HSTRLEN', run, 'answers') > 1000000 then
  fields[#fields + 1] = 'answers'
  fields[#fields + 1] = ''
end
local entry = note_event(
  run, id, found.hook, fields, outbox, outbox_users, delayed, last, ms, 'waiting', nil, ms + GRACE_MS
)
write(run, with_usage(ended(fields, fence, ms, 'waiting', found), used, MORE_KEYS), MORE)
-- Protected: if one of these keys is damaged, the run waits all the same, and can be answered or cancelled.
redis.pcall('ZREM', leases, id)
redis.pcall('ZADD', waiting, int(expires_ms), id)
redis.pcall('ZADD', delayed, 'LT', int(expires_ms), EXPIRIES)
redis.call('PUBLISH', control, 'due ' .. int(math.max(0, expires_ms - ms)))
return { 'OK', last, entry or '' }
