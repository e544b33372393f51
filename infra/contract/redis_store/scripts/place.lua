-- KEYS: ready, delayed, workers
-- ARGV: id
-- Reply: number of ready runs before the run (-1 if it is not ready), its due time in ms (empty if it is not delayed), number
-- of worker processes that are alive. Changes nothing.

local alive = redis.pcall('ZCOUNT', workers, '(' .. int(now_ms()), '+inf')
local ahead, due = redis.call('ZRANK', ready, id), redis.call('ZSCORE', delayed, id)
return { ahead or -1, due or '', tonumber(alive) or 0 }
