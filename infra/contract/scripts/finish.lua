-- KEYS: run, log, leases, dead
-- ARGV: id, fence, batch, count, events, channel, status, result, error, retention_s, then pairs to keep: field, value
-- Answers: name, seq of the last event. The events end with the terminal one.
expect(4, 10)
local run, log, leases, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, fence, batch, events, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
local count = number(ARGV[4], 'count')
number(batch, 'batch')
local status, result, failure, retention_s = ARGV[7], ARGV[8], ARGV[9], number(ARGV[10], 'retention_s')

local refusal, found = guard(run, fence, batch)
if refusal then return { refusal, tonumber(found.seq or 0) } end
if not TERMINAL[status] or not allowed(found.status, status) then return { 'REFUSED', tonumber(found.seq) } end
local ms = now_ms()
local last = append(log, channel, found.seq, count, events)
local fields = {
  'status', status, 'batch', batch, 'seq', int(last), 'finished_ms', int(ms), 'result', result, 'error', failure,
}
write(run, ended(fields, fence, ms, status), 11)
redis.call('ZREM', leases, id)
expire(run, log, retention_s)
if status == 'failed' then
  redis.call('ZADD', dead, int(ms), id)
  redis.call('ZREMRANGEBYSCORE', dead, '-inf', int(ms - retention_s * 1000))
end
return { 'OK', last }
