package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/ban"
)

// The keys of bans. They are in one slot of a cluster and do not expire.
//
//	merlon:{ban}:list     HASH    ID: the ban's JSON
//	merlon:{ban}:ends     ZSET    ID by the ban's end in microseconds
//	merlon:{ban}:version  STRING  a number that grows with every change
//
// ID is site, a line feed and key.
const banPrefix = "merlon:{ban}:"

// BanRights are what the ACL user of [Bans] needs, beside those of connecting.
const BanRights = "~" + banPrefix + "* +evalsha +eval +get +set +hget +hset +hdel +hgetall +zscore +zadd +zrem +zcard +zrange +zrangebyscore +time" +
	" +ping +hello +auth +select +role +client +cluster|slots +cluster|shards"

// Bans is a [ban.Store].
type Bans struct{ link Link }

var _ ban.Store = (*Bans)(nil)

// NewBans returns the bans in a server.
func NewBans(l Link) *Bans { return &Bans{l} }

func banKeys() []string {
	return []string{banPrefix + "list", banPrefix + "ends", banPrefix + "version"}
}

func banID(site, key string) string { return site + "\n" + key }

// bump numbers the next version: never one that was there before everything
// was lost, which is why it is no mere count.
const bump = `
local function bump()
  local now, old = redis.call('TIME'), tonumber(redis.call('GET', KEYS[3]) or '0')
  local new = math.max(old + 1, tonumber(now[1]) * 1000000 + tonumber(now[2]))
  redis.call('SET', KEYS[3], string.format('%.0f', new))
end

local function drop(ids)
  for _, id in ipairs(ids) do
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
  end
  return #ids
end
`

var (
	putBans = rueidis.NewLuaScript(bump + `
for i = 3, #ARGV, 3 do
  local old = redis.call('ZSCORE', KEYS[2], ARGV[i])
  if not old or tonumber(old) <= tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    redis.call('ZADD', KEYS[2], ARGV[i + 1], ARGV[i])
  end
end
drop(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[2]))
local over, dropped = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[1]), 0
if over > 0 then dropped = drop(redis.call('ZRANGE', KEYS[2], 0, over - 1)) end
bump()
return dropped
`)
	liftBan = rueidis.NewLuaScript(bump + `
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
bump()
return 1
`)
	listBans = rueidis.NewLuaScript(`
local version = redis.call('GET', KEYS[3]) or ''
if version == ARGV[1] then return {version} end
return {version, redis.call('HGETALL', KEYS[1])}
`)
)

// Put implements [ban.Store].
func (b *Bans) Put(ctx context.Context, list []ban.Ban, atMost int, now time.Time) (dropped int, err error) {
	if len(list) == 0 {
		return 0, nil
	}
	c, err := b.link()
	if err != nil {
		return 0, err
	}
	args := make([]string, 0, 2+3*len(list))
	args = append(args, strconv.Itoa(atMost), micros(now.Add(-ban.Remembered)))
	for _, one := range list {
		body, err := json.Marshal(one)
		if err != nil {
			return 0, fmt.Errorf("redis: %w", err)
		}
		args = append(args, banID(one.Site, one.Key), micros(one.Until), string(body))
	}
	n, err := putBans.Exec(ctx, c, banKeys(), args).AsInt64()
	return int(n), banError(err)
}

// Lift implements [ban.Store].
func (b *Bans) Lift(ctx context.Context, site, key string) (bool, error) {
	c, err := b.link()
	if err != nil {
		return false, err
	}
	n, err := liftBan.Exec(ctx, c, banKeys(), []string{banID(site, key)}).AsInt64()
	return n == 1, banError(err)
}

// List implements [ban.Store].
func (b *Bans) List(ctx context.Context, have string) ([]ban.Ban, string, error) {
	c, err := b.link()
	if err != nil {
		return nil, have, err
	}
	parts, err := listBans.Exec(ctx, c, banKeys(), []string{have}).ToArray()
	if err != nil {
		return nil, have, banError(err)
	}
	version, err := parts[0].ToString()
	if err != nil || len(parts) == 1 {
		return nil, have, banError(err)
	}
	flat, err := parts[1].AsStrSlice()
	if err != nil {
		return nil, have, banError(err)
	}
	list := make([]ban.Ban, 0, len(flat)/2)
	for i := 1; i < len(flat); i += 2 {
		var one ban.Ban
		if err := json.Unmarshal([]byte(flat[i]), &one); err != nil {
			return nil, have, fmt.Errorf("redis: a ban cannot be read: %w", err)
		}
		if site, key, _ := strings.Cut(flat[i-1], "\n"); site != one.Site || key != one.Key {
			return nil, have, errors.New("redis: a ban stands under another's name")
		}
		list = append(list, one)
	}
	return list, version, nil
}

func banError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("redis: %w", err)
}
