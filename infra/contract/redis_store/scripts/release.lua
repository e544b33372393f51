-- KEYS: run, log, leases, ready, pending, delayed, then days
-- ARGV: id, fence, owner, batch (digits), count (number), events, channel, delay_ms (number), end_as, control,
--   usage, then field, value
-- Reply: outcome, seq of the last event. The run is ready again at once, or after the delay. `end_as` is the outcome of the
-- attempt, which counts if it is `given_back`, and not if it is `drained`, `unable` or `message`.

local refusal, found = guard(run, fence, owner, batch)
if refusal then return { refusal, tonumber(found.seq or 0) } end
if not allowed(found.status, 'queued') then return { 'REFUSED', tonumber(found.seq) } end
local used = usage_of(run, usage)
local us = now_us()
local ms = math.floor(us / 1000)
local held = redis.call('HMGET', run, 'attempt', 'priority')
local attempt = tonumber(held[1]) - (end_as == 'given_back' and 0 or 1)
local score = order(held[2], us)
enqueue(ready, pending, delayed, control, id, score, ms, ms + delay_ms)
local last = append(log, channel, found.seq, count, events)
local fields = {
  'status', 'queued', 'batch', batch, 'seq', int(last), 'queued_ms', int(ms), 'attempt', int(attempt), 'worker', '',
}
write(run, with_usage(ended(fields, fence, ms, end_as, found), used, MORE_KEYS), MORE)
-- After the fields of this call: a result among them has reset the count.
if end_as == 'unable' then redis.call('HINCRBY', run, 'unable', 1) end
redis.pcall('ZREM', leases, id)
return { 'OK', last }
