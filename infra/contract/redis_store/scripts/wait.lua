-- KEYS: run, log, leases
-- ARGV: id, fence, batch (digits), count (number), events, channel, then field, value
-- Reply: outcome, seq of the last event. The run holds no lease until it is resumed or cancelled.

local refusal, found = guard(run, fence, batch)
if refusal then return { refusal, tonumber(found.seq or 0) } end
if not allowed(found.status, 'waiting') then return { 'REFUSED', tonumber(found.seq) } end
local last = append(log, channel, found.seq, count, events)
local fields = { 'status', 'waiting', 'batch', batch, 'seq', int(last), 'worker', '' }
write(run, ended(fields, fence, now_ms(), 'waiting', found), MORE)
redis.call('ZREM', leases, id)
return { 'OK', last }
