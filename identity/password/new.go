package password

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

// The kinds of hash that can be made.
const (
	argon2id = "argon2id"
	bcrypted = "bcrypt"
)

const (
	defaultMemory = 47104 // KiB: the floor with one pass
	minMemory     = 12288
	targetTime    = 75 * time.Millisecond
	maxCalibrated = 8 // passes

	minBcrypt, defaultBcrypt, maxBcrypt = 10, 12, 14

	maxAtOnce, maxQueue     = 256, 10_000
	defaultQueue            = 64
	minWait, maxWait        = 10 * time.Millisecond, time.Minute
	defaultWait             = 5 * time.Second
	saltBytes, sumBytes     = 16, 32
	nominalMemory           = 47104 // KiB that one turn stands for where hashes need little
	memoryRule              = "must be from 12MiB to 256MiB, in whole KiB"
	pepperPurpose, pepperID = "merlon password pepper", "merlon password pepper id"
)

// leastTime returns how many passes over so much memory are the least that
// OWASP ASVS 5.0 accepts.
func leastTime(memory uint32) uint32 {
	switch {
	case memory >= defaultMemory:
		return 1
	case memory >= 19456:
		return 2
	}
	return 3
}

func newHasher(c Config) (*Hasher, error) {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	h := &Hasher{peppers: make(map[string]*pepper)}
	memory, passes := argonCost(c.Argon2, bad)
	cost := c.BcryptCost
	if cost == 0 {
		cost = defaultBcrypt
	} else if cost < minBcrypt || cost > maxBcrypt {
		bad("bcrypt_cost", strconv.Itoa(cost), "must be from 10 to 14")
	}
	switch c.Hash {
	case "", argon2id:
		h.own = hash{kind: argon2id, memory: memory, cost: passes, lanes: 1}
	case bcrypted:
		h.own = hash{kind: bcrypted, cost: uint32(cost)}
	default:
		bad("hash", c.Hash, "must be argon2id or bcrypt")
	}
	h.addPeppers(c, bad)
	h.turns = newTurns(c, bad)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if h.own.kind == argon2id && h.own.cost == 0 {
		h.own.cost = calibrate(memory)
	}
	h.turns.unit = max(h.own.needs(), nominalMemory)
	return h, nil
}

// argonCost returns the KiB and passes that are set; no passes if they are to
// be measured.
func argonCost(c Argon2, bad func(setting, value, rule string)) (memory, passes uint32) {
	memory = defaultMemory
	if c.Memory != 0 {
		if c.Memory < minMemory*merlon.KiB || c.Memory > maxMemory*merlon.KiB || c.Memory%merlon.KiB != 0 {
			bad("argon2.memory", c.Memory.String(), memoryRule)
			return 0, 0
		}
		memory = uint32(c.Memory / merlon.KiB)
	}
	if c.Time == 0 {
		return memory, 0
	}
	least, most := leastTime(memory), maxMemoryTime/memory
	if c.Time < int(least) || c.Time > int(most) {
		bad("argon2.time", strconv.Itoa(c.Time), fmt.Sprintf("must be from %d to %d with %s of memory", least, most, merlon.Size(memory)*merlon.KiB))
		return 0, 0
	}
	return memory, uint32(c.Time)
}

// calibrate returns how many passes over the memory come nearest to the time
// that a log-in may take, at least the floor.
func calibrate(memory uint32) uint32 {
	one := time.Duration(1<<63 - 1)
	salt := make([]byte, saltBytes)
	for range 2 {
		start := time.Now()
		clear(argon2.IDKey(nil, salt, 1, memory, 1, sumBytes))
		one = min(one, max(time.Since(start), time.Microsecond))
	}
	passes := uint32(min((targetTime+one/2)/one, maxCalibrated))
	return min(max(passes, leastTime(memory)), max(maxMemoryTime/memory, 1))
}

// A pepper is a key that passwords are mixed with before they are hashed.
type pepper struct {
	id  string // eight characters of base64, which hashes name it by
	key []byte
}

// mix returns what is hashed in place of the password. It is text without NUL
// of 64 bytes, as bcrypt needs, and without the key nobody can find it in a
// list of other systems' digests.
func (p *pepper) mix(password []byte) []byte {
	m := hmac.New(sha512.New384, p.key)
	m.Write(password)
	return base64.StdEncoding.AppendEncode(nil, m.Sum(nil))
}

func newPepper(r secrets.Ref) (*pepper, error) {
	s, err := r.Resolve()
	if err != nil {
		return nil, err
	}
	k, err := secrets.NewKey(s)
	if err != nil {
		return nil, err
	}
	return &pepper{
		id:  base64.RawStdEncoding.EncodeToString(k.Derive(pepperID)[:6]),
		key: k.Derive(pepperPurpose),
	}, nil
}

func (h *Hasher) addPeppers(c Config, bad func(setting, value, rule string)) {
	add := func(setting string, r secrets.Ref) *pepper {
		p, err := newPepper(r)
		if err != nil {
			bad(setting, string(r), err.Error())
			return nil
		}
		h.peppers[p.id] = p
		return p
	}
	for i, r := range c.OldPeppers {
		add(fmt.Sprintf("old_peppers[%d]", i), r)
	}
	if c.Pepper == "" {
		return
	}
	if h.pepper = add("pepper", c.Pepper); h.pepper != nil {
		h.own.keyID = h.pepper.id
	}
}

func newTurns(c Config, bad func(setting, value, rule string)) *turns {
	if c.AtOnce == 0 {
		c.AtOnce = min(max(runtime.GOMAXPROCS(0)/2, 1), maxAtOnce)
	} else if c.AtOnce < 0 || c.AtOnce > maxAtOnce {
		bad("at_once", strconv.Itoa(c.AtOnce), "must be from 1 to 256")
	}
	if c.Queue == 0 {
		c.Queue = defaultQueue
	} else if c.Queue < 0 || c.Queue > maxQueue {
		bad("queue", strconv.Itoa(c.Queue), "must be from 1 to 10000")
	}
	if c.Wait == 0 {
		c.Wait = defaultWait
	} else if c.Wait < minWait || c.Wait > maxWait {
		bad("wait", c.Wait.String(), "must be from 10ms to 1m")
	}
	return makeTurns(max(c.AtOnce, 1), c.Queue, c.Wait)
}
