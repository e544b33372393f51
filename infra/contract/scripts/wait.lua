-- KEYS: run, log, leases
-- ARGV: id, fence, batch, count, events, channel, then pairs to keep: field, value
-- Answers: name, seq of the last event. The run gives back its lease until it is resumed or cancelled.
expect(3, 6)
local run, log, leases = KEYS[1], KEYS[2], KEYS[3]
local id, fence, batch, events, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
local count = number(ARGV[4], 'count')
number(batch, 'batch')

local refusal, found = guard(run, fence, batch)
if refusal then return { refusal, tonumber(found.seq or 0) } end
if not allowed(found.status, 'waiting') then return { 'REFUSED', tonumber(found.seq) } end
local last = append(log, channel, found.seq, count, events)
write(run, ended({ 'status', 'waiting', 'batch', batch, 'seq', int(last), 'worker', '' }, fence, now_ms(), 'waiting'), 7)
redis.call('ZREM', leases, id)
return { 'OK', last }
