-- KEYS: run, user_runs
-- ARGV: id, ttl_s (number)
-- Reply: outcome. OK if there is no record. From then on, for `ttl_s` seconds or until `delete`, no run can be created with this
-- id, so the caller can delete the objects of an expired run without the danger that a new run stores objects with the same
-- keys. SAME if the script was called before. REFUSED if there is a run, readable or not.

local outcome = 'OK'
if redis.call('EXISTS', run) == 1 then
  -- The digest of a request is never this word.
  if redis.call('TYPE', run).ok ~= 'hash' or redis.call('HGET', run, 'digest') ~= 'expired' then return { 'REFUSED' } end
  outcome = 'SAME'
end
redis.call('HSET', run, 'digest', 'expired', 'condemned', '1')
redis.call('EXPIRE', run, ttl_s)
redis.call('ZREM', user_runs, id)
return { outcome }
