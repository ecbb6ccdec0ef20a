-- Record one order under each of its keys, once, and say each figure as it was when the order came.
-- KEYS[1]: the epoch, holding the run id of the server that counts in it. Then one sorted set per key and kind, those
-- of attempts first: members are packed events (8 bytes row id, 8 amount, 3 currency, 6 of each dimension's hash),
-- scores their times in microseconds; '#full' says that all from before the epoch is there.
-- ARGV: run id, time, member, 'last' or '', microseconds to keep, events to read at most, how many sets are of
-- attempts, one 'y' or 'n' per set (is there anything from before the epoch?), number of windows, the windows; then
-- for each other figure: index of its set, window, and 0 (count), 1 (sum) or the other dimension's place in a member.
-- Answers {'untrusted'}, {'cold', index...} or {'figures', times, counts, from, value, from, value...}: beyond `from`
-- an incomplete figure was not read; distinct ones are their hashes in a row.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'untrusted'}
end
local at, member, keep, most = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local attempts, has_past, windows = tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])

local cold = {'cold'}
for index = 2, #KEYS do
  if string.sub(has_past, index - 1, index - 1) == 'y' and not redis.call('ZSCORE', KEYS[index], '#full') then
    cold[#cold + 1] = index - 2
  end
end
if #cold > 1 then
  return cold
end

local function exact(number)
  return string.format('%.0f', number)
end

-- Strictly later than all before it, so that a retry finds the same rank again.
local function record(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', exact(at - keep))
  if ARGV[4] == 'last' then
    redis.call('ZREM', key, member)
  end
  local mine = redis.call('ZSCORE', key, member)
  if mine then
    mine = tonumber(mine)
  else
    local newest = redis.call('ZREVRANGEBYSCORE', key, '(+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
    mine = math.max(at, tonumber(newest[2] or 0) + 1)
    redis.call('ZADD', key, exact(mine), member)
  end
  redis.call('PEXPIRE', key, keep / 1000)
  return mine
end

local times, counts = {}, {}
for index = 2, #KEYS do
  local key = KEYS[index]
  local mine = at
  if index - 1 <= attempts then
    mine = record(key)
    -- By rank, not by time: two rows of the same microsecond still come one after the other.
    local rank = redis.call('ZRANK', key, member) + 1
    for window = 10, 9 + windows do
      counts[#counts + 1] = rank - redis.call('ZCOUNT', key, '-inf', exact(mine - tonumber(ARGV[window])))
    end
  end
  times[index - 1] = exact(mine)
end
redis.call('PEXPIRE', KEYS[1], keep / 500)

-- The events of a set for all its sums and distinct figures, newest first; past `most` of them the rest is not read.
local function read(index, span)
  local mine = times[index]
  local from = exact(tonumber(mine) - span)
  local events = redis.call('ZREVRANGEBYSCORE', KEYS[index + 1], mine, '(' .. from, 'WITHSCORES', 'LIMIT', 0, most)
  return events, #events == 2 * most and tonumber(events[#events]) or tonumber(from)
end

local function sum(events, from)
  local total, currency = 0, string.sub(member, 17, 19)
  for place = 1, #events, 2 do
    if tonumber(events[place + 1]) <= from then
      break
    end
    if string.sub(events[place], 17, 19) == currency then
      total = total + struct.unpack('>I8', events[place], 9)
    end
  end
  return exact(total)
end

local function distinct(events, from, offset)
  local seen, found = {['\0\0\0\0\0\0'] = true}, {}
  for place = 1, #events, 2 do
    if tonumber(events[place + 1]) <= from then
      break
    end
    local value = string.sub(events[place], offset, offset + 5)
    if not seen[value] then
      seen[value] = true
      found[#found + 1] = value
    end
  end
  return table.concat(found)
end

local reply = {'figures', table.concat(times, ' '), table.concat(counts, ' ')}
local events, floor, loaded
for place = 10 + windows, #ARGV, 3 do
  local index, span, what = tonumber(ARGV[place]), tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2])
  local mine = tonumber(times[index])
  local from = mine - span
  if what == 0 then
    reply[#reply + 1] = exact(from)
    reply[#reply + 1] = redis.call('ZCOUNT', KEYS[index + 1], '(' .. exact(from), exact(mine))
  else
    if loaded ~= index then  -- the widest window of a set comes first
      events, floor = read(index, span)
      loaded = index
    end
    from = math.max(from, floor)
    reply[#reply + 1] = exact(from)
    reply[#reply + 1] = what == 1 and sum(events, from) or distinct(events, from, what)
  end
end
return reply
