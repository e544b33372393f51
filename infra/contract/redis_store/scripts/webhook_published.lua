-- KEYS: outbox, outbox_users, delayed
-- ARGV: count (number), then entry
-- Reply: number of the entries that were still in the outbox, and are removed.

local removed = 0
for index = MORE, MORE + count - 1 do
  if redis.call('ZREM', outbox, ARGV[index]) == 1 then
    removed = removed + 1
    local user = ARGV[index]:match('^(.*):[^:]*:%d+:%d+:%d+$')
    if user then uncount(outbox_users, user) end
  end
end
if redis.call('ZCARD', outbox) == 0 then redis.call('ZREM', delayed, OVERDUE_EVENTS) end
return removed
