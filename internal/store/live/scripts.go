package live

import "github.com/redis/rueidis"

// The scripts work on one account's hash each. They compare microseconds,
// which are exact in Lua's numbers until the year 2255, and never write one
// that they have not been given as text.

// common are the functions that scripts share.
const common = `
local key = KEYS[1]

-- times returns created, seen, expires and until as text, and whether it is retired.
local function times(st)
  local c, s, e, u, r = string.match(st, '^(%d+) (%d+) (%d+) (%d+) ([01])$')
  if not c then error('the times of a session cannot be read') end
  return c, s, e, u, r == '1'
end

-- all returns the sessions: hash, body and times.
local function all()
  local flat, found, by = redis.call('HGETALL', key), {}, {}
  for i = 1, #flat, 2 do by[flat[i]] = flat[i + 1] end
  for h, body in pairs(by) do
    if #h == 64 then
      if not by[h .. ':t'] then error('a session has no times') end
      found[#found + 1] = {hash = h, body = body, st = by[h .. ':t']}
    end
  end
  table.sort(found, function(a, b) return a.hash < b.hash end)
  return found
end

local function drop(h) redis.call('HDEL', key, h, h .. ':t') end

-- purge drops what has expired by the server's own clock.
local function purge()
  local now = redis.call('TIME')
  for _, s in ipairs(all()) do
    local _, _, expires = times(s.st)
    if math.floor(tonumber(expires) / 1000000) + 1 < tonumber(now[1]) then drop(s.hash) end
  end
end

-- store adds a session; the whole hash lives as long as the last of them.
local function store(h, body, st)
  local last = 0
  redis.call('HSET', key, h, body, h .. ':t', st)
  for _, s in ipairs(all()) do
    local _, _, _, till = times(s.st)
    last = math.max(last, math.ceil(tonumber(till) / 1000) + 1)
  end
  redis.call('PEXPIREAT', key, string.format('%.0f', last))
end

local function tell(channel, hashes)
  if #hashes > 0 then redis.call('PUBLISH', channel, table.concat(hashes, ' ')) end
end
`

// putScript adds a session and ends the oldest of those that are too many.
var putScript = rueidis.NewLuaScript(common + `
local hash, body, st, issued, atmost, id, channel = unpack(ARGV)
purge()
store(hash, body, st)
local others, ended = {}, {}
for _, s in ipairs(all()) do
  local created, _, expires, _, retired = times(s.st)
  s.created, s.id = tonumber(created), cjson.decode(s.body).id
  if s.hash ~= hash and not retired and tonumber(expires) > tonumber(issued) then others[#others + 1] = s end
end
table.sort(others, function(a, b)
  if a.created ~= b.created then return a.created < b.created end
  return a.hash < b.hash
end)
for i = 1, #others + 1 - tonumber(atmost) do
  if not others[i] then break end
  for _, s in ipairs(all()) do
    if s.hash ~= hash and cjson.decode(s.body).id == others[i].id then
      drop(s.hash)
      ended[#ended + 1] = s.hash
    end
  end
end
tell(channel, ended)
return ended
`)

// touchScript moves a session's end to later.
var touchScript = rueidis.NewLuaScript(common + `
local hash, seen, expires = unpack(ARGV)
local st = redis.call('HGET', key, hash .. ':t')
if not st or redis.call('HEXISTS', key, hash) == 0 then return 0 end
local c, s, e, u, retired = times(st)
if retired then return 0 end
if tonumber(seen) > tonumber(s) then s = seen end
if tonumber(expires) > tonumber(u) then expires = u end
if tonumber(expires) > tonumber(e) then e = expires end
redis.call('HSET', key, hash .. ':t', c .. ' ' .. s .. ' ' .. e .. ' ' .. u .. ' 0')
return 1
`)

// rotateScript puts a session in the place of another.
var rotateScript = rueidis.NewLuaScript(common + `
local old, grace, hash, body, st, id = unpack(ARGV)
local had, t = redis.call('HGET', key, old), redis.call('HGET', key, old .. ':t')
if not had or not t or cjson.decode(had).id ~= id then return 0 end
local c, s, e, u, retired = times(t)
if retired then return 0 end
if tonumber(grace) < tonumber(e) then e = grace end
redis.call('HSET', key, old .. ':t', c .. ' ' .. s .. ' ' .. e .. ' ' .. u .. ' 1')
purge()
store(hash, body, st)
return 1
`)

// endScript drops what is selected.
var endScript = rueidis.NewLuaScript(common + `
local id, except, issuer, subject, sid, channel = unpack(ARGV)
local ended = {}
for _, s in ipairs(all()) do
  local b = cjson.decode(s.body)
  if (id == '' or id == b.id) and (except == '' or except ~= b.id)
    and (issuer == '' or issuer == b.issuer)
    and (subject == '' or subject == b.subject) and (sid == '' or sid == b.sid) then
    drop(s.hash)
    ended[#ended + 1] = s.hash
  end
end
tell(channel, ended)
return ended
`)

// indexScript adds an account to a provider's set, which never expires before
// any of its sessions.
var indexScript = rueidis.NewLuaScript(`
redis.call('SADD', KEYS[1], ARGV[1])
local now, left = redis.call('TIME'), redis.call('PTTL', KEYS[1])
if left < 0 or tonumber(now[1]) * 1000 + left < tonumber(ARGV[2]) then
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
`)
