-- Record one order under each key, once, and count each window as it was when the order came.
-- KEYS[1] holds when this namespace began (microseconds); the others are sorted sets of orders by time.
-- ARGV: order, microseconds to keep, then the windows in microseconds.
-- Answers {"unborn"}, {"cold", began, index...} or {"counts", per key and window...}.
local began = redis.call('GET', KEYS[1])
if not began then
  return {'unborn'}
end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local keep = tonumber(ARGV[2])

-- A namespace older than what is kept has seen everything; in a younger one each key is filled from PostgreSQL first.
if now - tonumber(began) < keep then
  local cold = {'cold', began}
  for index = 2, #KEYS do
    if not redis.call('ZSCORE', KEYS[index], '#full') then
      cold[#cold + 1] = index - 2
    end
  end
  if #cold > 2 then
    return cold
  end
end

local reply = {'counts'}
for index = 2, #KEYS do
  local key = KEYS[index]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - keep))
  local mine = redis.call('ZSCORE', key, ARGV[1])
  if mine then
    mine = tonumber(mine)
  else
    -- Strictly later than all before it, so that a retry finds the same rank again.
    local last = redis.call('ZREVRANGEBYSCORE', key, '(+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
    mine = math.max(now, tonumber(last[2] or 0) + 1)
    redis.call('ZADD', key, string.format('%.0f', mine), ARGV[1])
  end
  redis.call('PEXPIRE', key, keep / 1000)
  -- By rank, not by time: two rows of the same microsecond still come one after the other.
  local rank = redis.call('ZRANK', key, ARGV[1]) + 1
  for window = 3, #ARGV do
    local from = string.format('%.0f', mine - tonumber(ARGV[window]))
    reply[#reply + 1] = rank - redis.call('ZCOUNT', key, '-inf', from)
  end
end
return reply
