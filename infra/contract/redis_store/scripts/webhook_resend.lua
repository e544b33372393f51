-- KEYS: run, outbox, outbox_users, delayed
-- ARGV: id, user, seq (digits), at_ms (number), token, max_rounds (number)
-- Reply: outcome, entry. Sends an event again. SAME if this request was carried out before (`token` names it). REFUSED if the
-- outbox has no place, FULL if the event was sent `max_rounds` times. GONE: there is no such event.

local name = 'hook:' .. seq
local held = redis.call('HMGET', run, name, name .. ':round', name .. ':token', 'condemned')
if not held[1] or held[4] or cjson.decode(held[1]).at_ms ~= at_ms then return { 'GONE' } end
if held[3] == token then return { 'SAME' } end
local round = tonumber(held[2] or 1) + 1
if round > max_rounds then return { 'FULL' } end
local entry = user .. ':' .. id .. ':' .. seq .. ':' .. int(at_ms) .. ':' .. int(round)
if not queue_event(outbox, outbox_users, delayed, user, entry, now_ms() + GRACE_MS) then return { 'REFUSED' } end
redis.call('HSET', run, name .. ':round', int(round), name .. ':token', token)
return { 'OK', entry }
