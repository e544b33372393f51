-- KEYS: schedule, tick
-- ARGV: run_id, by_hand (digits), tick_s (number), run_prefix
-- Reply: the decision as JSON, then the run of the schedule as JSON if a run is started. A tick that comes again gets the
-- decision that was stored. `by_hand` is 1 if a person starts a run, also of a paused schedule.
-- The last run is derived from the record of the schedule, so its key is derived here from the prefix.

-- A run is created right after the decision. Until then it counts as one that has not ended.
local CREATED_MS = 60000

local held = redis.call('HMGET', schedule, 'paused', 'condemned', 'overlap', 'last', 'run')
if not held[1] or held[2] then return { '{"outcome":"gone"}' } end
local known = redis.call('GET', tick)
if known then return { known, held[5] } end
if held[1] == '1' and by_hand ~= '1' then return { '{"outcome":"paused"}' } end
local ms = now_ms()
local last = held[4] and cjson.decode(held[4])
local active = false
if last then
  -- A run whose record is damaged must not keep the schedule from starting others.
  local status = redis.pcall('HGET', run_prefix .. last.run_id, 'status')
  if type(status) == 'table' then status = false end
  if status then
    active = not TERMINAL[status]
  else
    active = last.outcome == 'started' and ms - last.at_ms < CREATED_MS
  end
end
local decision = { outcome = 'started', run_id = run_id }
if active and held[3] == 'skip' then
  decision = { outcome = 'skipped', run_id = last.run_id }
elseif active and held[3] == 'cancel' then
  decision.cancels = last.run_id
end
local text = cjson.encode(decision)
redis.call('SET', tick, text, 'EX', int(tick_s))
redis.call('HSET', schedule, 'last', '{"at_ms":' .. int(ms) .. ',' .. text:sub(2))
return { text, held[5] }
