package live

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// The keys of kept forms. ID is a hash of a secret that only one browser has.
//
//	merlon:k:{ID}  HASH  s: what is kept, sealed; u: who sent it, may be empty; f: whom it was released for
const keptPrefix = "merlon:k:"

// KeptRights are what the ACL user of [Kept] needs, beside those of holding a connection.
const KeptRights = "~" + keptPrefix + "* +evalsha +eval +hset +hmget +del +pexpire"

const (
	// keptWithin is how long a server may take to answer.
	keptWithin = 2 * time.Second
	// maxKept is more than a sealed form has.
	maxKept = 2 << 20
)

var errKeptTooLarge = errors.New("redis: a form is too large to be kept")

// Kept is a resume.Store that replicas share.
type Kept struct{ link Link }

// NewKept returns the kept forms in a server.
func NewKept(l Link) Kept { return Kept{l} }

var (
	keepScript = rueidis.NewLuaScript(`
redis.call('HSET', KEYS[1], 's', ARGV[1], 'u', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
`)
	releaseScript = rueidis.NewLuaScript(`
local s, u, f = unpack(redis.call('HMGET', KEYS[1], 's', 'u', 'f'))
if not s or (u ~= '' and u ~= ARGV[1]) or (f and f ~= ARGV[1]) then return false end
if not f then
  redis.call('HSET', KEYS[1], 'f', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return s
`)
	takeScript = rueidis.NewLuaScript(`
local s, f = unpack(redis.call('HMGET', KEYS[1], 's', 'f'))
if not s or not f then return false end
redis.call('DEL', KEYS[1])
return {s, f}
`)
)

func keptKeys(id [32]byte) []string { return []string{keptPrefix + hex.EncodeToString(id[:])} }

// Put implements resume.Store.
func (k Kept) Put(ctx context.Context, id [32]byte, sealed []byte, subject string, lifetime time.Duration) error {
	if len(sealed) > maxKept {
		return errKeptTooLarge
	}
	c, err := k.link()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, keptWithin)
	defer cancel()
	return keepScript.Exec(ctx, c, keptKeys(id), []string{rueidis.BinaryString(sealed), subject, millis(lifetime)}).Error()
}

// Release implements resume.Store.
func (k Kept) Release(ctx context.Context, id [32]byte, subject string, window time.Duration) ([]byte, error) {
	c, err := k.link()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, keptWithin)
	defer cancel()
	sealed, err := releaseScript.Exec(ctx, c, keptKeys(id), []string{subject, millis(window)}).AsBytes()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	return sealed, err
}

// Take implements resume.Store.
func (k Kept) Take(ctx context.Context, id [32]byte) ([]byte, string, error) {
	c, err := k.link()
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, keptWithin)
	defer cancel()
	f, err := takeScript.Exec(ctx, c, keptKeys(id), nil).AsStrSlice()
	if rueidis.IsRedisNil(err) {
		return nil, "", nil
	}
	if err == nil && len(f) != 2 {
		err = errors.New("redis: a kept form cannot be read")
	}
	if err != nil {
		return nil, "", err
	}
	return []byte(f[0]), f[1], nil
}

func millis(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }
