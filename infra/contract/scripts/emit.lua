-- KEYS: run, log
-- ARGV: fence, batch, count, events, channel, then pairs to keep: field, value
-- Answers: name, cancel, seq of the last event. `count` may be 0 if there is only something to keep.
expect(2, 5)
local run, log = KEYS[1], KEYS[2]
local fence, batch, count, events, channel = ARGV[1], ARGV[2], number(ARGV[3], 'count'), ARGV[4], ARGV[5]
number(batch, 'batch')

local refusal, found = guard(run, fence, batch)
if refusal then return { refusal, found.cancel, tonumber(found.seq or 0) } end
local last = tonumber(found.seq)
if count > 0 then last = append(log, channel, found.seq, count, events) end
write(run, { 'batch', batch, 'seq', int(last) }, 6)
return { 'OK', found.cancel, last }
