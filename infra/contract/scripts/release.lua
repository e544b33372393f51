-- KEYS: run, log, leases, ready, pending, delayed
-- ARGV: id, fence, batch, count, events, channel, delay_ms, burn (0 or 1: whether the attempt counts), control,
--   then pairs to keep: field, value
-- Answers: name, seq of the last event. The run is ready again at once, or after the delay.
expect(6, 9)
local run, log, leases, ready, pending, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, fence, batch, events, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
local count = number(ARGV[4], 'count')
number(batch, 'batch')
local delay_ms, burn = number(ARGV[7], 'delay_ms'), number(ARGV[8], 'burn')

local refusal, found = guard(run, fence, batch)
if refusal then return { refusal, tonumber(found.seq or 0) } end
if not allowed(found.status, 'queued') then return { 'REFUSED', tonumber(found.seq) } end
local us = now_us()
local ms = math.floor(us / 1000)
local kept = redis.call('HMGET', run, 'attempt', 'priority')
local attempt = tonumber(kept[1]) - (1 - burn)
local last = append(log, channel, found.seq, count, events)
local fields = {
  'status', 'queued', 'batch', batch, 'seq', int(last), 'queued_ms', int(ms), 'attempt', int(attempt), 'worker', '',
}
write(run, ended(fields, fence, ms, burn == 1 and 'given_back' or 'drained'), 10)
redis.call('ZREM', leases, id)
enqueue(ready, pending, delayed, ARGV[9], id, kept[2], us, ms + delay_ms)
return { 'OK', last }
