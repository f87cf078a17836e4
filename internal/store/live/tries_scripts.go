package live

import "github.com/redis/rueidis"

// The scripts of tries work on one bucket each. Times are microseconds, levels
// are millionths of a failure, and both are exact in Lua's numbers.

// triesCommon are the functions that they share. What was counted is a text:
//
//	total  failures since the last success
//	level  failures that count for the wait, as of last
//	last   when something was counted last
//	next   no try before this
//	tag    the time that who was counted last gave for itself, in nanoseconds
//	stamp  tells the count that was last from all others
//	born   the stamp of the first
const triesCommon = `
local key, members = KEYS[1], KEYS[2]
local week, year, one = 604800e6, 31536000e6, 1000000

local function load()
  local raw = redis.call('GET', key)
  if not raw then return nil end
  local total, level, last, nxt, tag, stamp, born = string.match(raw, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not total then error('a bucket cannot be read') end
  return {total = tonumber(total), level = tonumber(level), last = tonumber(last), next = tonumber(nxt),
    tag = tag, stamp = tonumber(stamp), born = tonumber(born)}
end

local function text(n) return string.format('%.0f', n) end

local function save(p, ...)
  redis.call('SET', key, text(p.total) .. ' ' .. text(p.level) .. ' ' .. text(p.last) .. ' ' .. text(p.next) ..
    ' ' .. p.tag .. ' ' .. text(p.stamp) .. ' ' .. text(p.born), ...)
end

-- keep saves what was taken from; what is empty is dropped.
local function keep(p)
  if p.total == 0 and p.level == 0 and p.next == 0 then
    redis.call('DEL', key)
  else
    save(p, 'KEEPTTL')
  end
end

local function clock(now)
  if now ~= '' then return tonumber(now) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- waits says how long p has to wait, and whether waiting does not help.
local function waits(p, at, longest, most)
  if not p then return 0, '0' end
  if most > 0 and p.total >= most then return math.max(longest, p.next - at), '1' end
  return math.max(0, p.next - at), '0'
end
`

// triesSchedule reads the arguments of those that count.
const triesSchedule = triesCommon + `
local at, longest, most = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local free, first, forget = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local member = ARGV[7]

-- after is the wait after a level; like in memory, a thousandth short of one
-- failure more is one.
local function after(level)
  local over = math.floor((level + 1000) / one) - free
  if over <= 0 then return 0 end
  if over > 30 then return longest end
  return math.min(first * 2 ^ (over - 1), longest)
end
`

// lookScript says how long a bucket has to wait. It writes nothing.
var lookScript = rueidis.NewLuaScript(triesCommon + `
local p = load()
local wait, locked = waits(p, clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
return {text(wait), locked, text(p and p.total or 0)}
`)

// countScript counts one failure, unless it has to wait or its member was
// counted.
var countScript = rueidis.NewLuaScript(triesSchedule + `
local atmost, tag = tonumber(ARGV[8]), ARGV[9]
local p = load()
local wait, locked = waits(p, at, longest, most)
if wait > 0 then return {text(wait), locked, text(p.total)} end
p = p or {total = 0, level = 0, last = 0, next = 0, tag = '0', stamp = 0}
at = math.max(at, p.last) -- a clock that went back makes nobody younger
local stamp = math.max(at, p.stamp + 1)
if member ~= '' then
  local remembered = 12 * forget
  redis.call('ZREMRANGEBYSCORE', members, '-inf', text(at - remembered))
  local seen = redis.call('ZSCORE', members, member)
  if seen then -- always another score, so that who noted it does not take it back
    redis.call('ZADD', members, text(math.max(at, tonumber(seen) + 1)), member)
  elseif redis.call('ZCARD', members) < atmost then
    redis.call('ZADD', members, text(stamp), member)
  end
  redis.call('PEXPIRE', members, text(math.ceil(remembered / 1000) + 1000))
  if seen then return {'0', '0', '0'} end
end
local nxt, was = text(p.next), p.tag
if p.last > 0 then p.level = math.max(0, p.level - math.floor((at - p.last) * one / forget)) end
p.level = p.level + one
if p.level == one and most == 0 then p.total = 0 end -- all of it is forgotten
p.total, p.last, p.next, p.tag, p.stamp, p.born = p.total + 1, at, 0, tag, stamp, p.born or stamp
local wait = after(p.level)
if wait > 0 then p.next = at + wait end
local lives = math.max(wait, p.level / one * forget)
if most > 0 then lives = math.max(lives, math.min(p.total * week, year)) end
save(p, 'PX', text(math.ceil(lives / 1000) + 1000))
return {'0', '0', text(p.total), text(stamp), nxt, was}
`)

// undoScript takes one count back that led to nothing.
var undoScript = rueidis.NewLuaScript(triesSchedule + `
local stamp, nxt, was = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local p = load()
if not p or p.born > stamp then return {'0', '0', '0'} end -- forgotten meanwhile
if member ~= '' then
  local seen = redis.call('ZSCORE', members, member)
  if seen and tonumber(seen) ~= stamp then return {'0', '0', '0'} end -- another went on because of it
  redis.call('ZREM', members, member)
end
p.level, p.total = math.max(0, p.level - one), math.max(0, p.total - 1)
if p.stamp == stamp then
  p.next, p.tag = nxt, was
else
  -- Others were counted since, who wait for no more than what is left.
  local wait = after(p.level)
  p.next = math.min(p.next, wait > 0 and p.last + wait or 0)
end
keep(p)
return {'0', '0', '0'}
`)

// refundScript takes failures back.
var refundScript = rueidis.NewLuaScript(triesCommon + `
local count, tag, all, success, member = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if member ~= '' and (count > 0 or all == '1') then redis.call('ZREM', members, member) end
if all == '1' then
  redis.call('DEL', key)
  return {'0', '0', '0'}
end
local p = load()
if not p then return {'0', '0', '0'} end
p.level, p.total = math.max(0, p.level - count * one), math.max(0, p.total - count)
if count > 0 and p.tag == tag then p.next = 0 end -- the wait was for this failure alone
if success == '1' then p.total = 0 end
keep(p)
return {'0', '0', '0'}
`)
