-- KEYS: run, log
-- ARGV: fence, batch (digits), count (number), events, channel, then field, value
-- Reply: outcome, stop, seq of the last event, number of the last message to the run. `count` may be 0 if there are only fields to store.

local refusal, found = guard(run, fence, batch)
if refusal then return { refusal, found.stop, tonumber(found.seq or 0), found.messages or 0 } end
local last = tonumber(found.seq)
if count > 0 then last = append(log, channel, found.seq, count, events) end
write(run, { 'batch', batch, 'seq', int(last) }, MORE)
return { 'OK', found.stop, last, found.messages }
