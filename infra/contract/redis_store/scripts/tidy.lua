-- KEYS: index
-- ARGV:
-- Reply: number of members removed from an index of ids: those with other characters than ASCII, which no id has. A single one
-- that is not UTF-8 makes every reply with it unreadable over REST.

local removed = 0
for _, member in ipairs(redis.call('ZRANGE', index, 0, -1)) do
  if string.find(member, '[\128-\255]') then removed = removed + redis.call('ZREM', index, member) end
end
return removed
