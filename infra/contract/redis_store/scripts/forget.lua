-- KEYS: user_runs
-- ARGV: run_prefix, then ids
-- Reply: number of ids removed from the user's index. Removes only those whose record has expired: a run may have been created
-- again under the same id since the caller saw that.

local removed = 0
for index = MORE, #ARGV do
  if redis.call('EXISTS', run_prefix .. ARGV[index]) == 0 then
    removed = removed + redis.call('ZREM', user_runs, ARGV[index])
  end
end
return removed
