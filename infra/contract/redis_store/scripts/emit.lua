-- KEYS: run, log, then days
-- ARGV: fence, owner, batch (digits), count (number), events, channel, usage, then field, value
-- Reply: outcome, stop, seq of the last event, number of the last message to the run. `count` may be 0 if there are only fields to store.

local refusal, found = guard(run, fence, owner, batch)
if refusal then return { refusal, found.stop, tonumber(found.seq or 0), found.messages or 0 } end
local used = usage_of(run, usage)
local last = tonumber(found.seq)
if count > 0 then last = append(log, channel, found.seq, count, events) end
write(run, with_usage({ 'batch', batch, 'seq', int(last) }, used, MORE_KEYS), MORE)
return { 'OK', found.stop, last, found.messages }
