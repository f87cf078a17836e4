package password

import (
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

// Config configures a [Hasher] and a [Policy]. The zero Config hashes with
// argon2id, as slowly as this machine can afford, and asks for 15 characters
// or, beside a second factor, 8.
type Config struct {
	// Hash is how passwords are hashed: argon2id or bcrypt. Hashes of another
	// kind are still verified, and replaced when their owner logs in. With
	// bcrypt and no pepper, a password may have 72 bytes at most.
	// Default: argon2id. Example:
	//
	//	hash: bcrypt
	Hash string `yaml:"hash,omitempty"`
	// Argon2 is what one argon2id hash costs. Default: 46MiB, and as many
	// passes as take 75 ms on this machine, measured at start. Example:
	//
	//	argon2: {memory: 64MiB, time: 2}
	Argon2 Argon2 `yaml:"argon2,omitempty"`
	// BcryptCost is what one bcrypt hash costs; each step doubles it. From 10
	// to 14. Default: 12. Example:
	//
	//	bcrypt_cost: 11
	BcryptCost int `yaml:"bcrypt_cost,omitempty"`
	// Pepper is a secret of at least 32 bytes that every password is mixed
	// with, so that a stolen database alone tells nothing. Whoever loses it
	// loses every password: keep a copy. Hashes from before it was set are
	// still verified, and replaced when their owner logs in. Default: none.
	// Example:
	//
	//	pepper: file:/etc/merlon/pepper
	Pepper secrets.Ref `yaml:"pepper,omitempty"`
	// OldPeppers were the pepper before. What was hashed with them is still
	// verified, and replaced when its owner logs in. Default: none. Example:
	//
	//	old_peppers: [file:/etc/merlon/pepper.2025]
	OldPeppers []secrets.Ref `yaml:"old_peppers,omitempty"`
	// AtOnce is how many passwords are hashed at the same time. Each takes one
	// core and the memory of one hash, which Go gives back late: count on
	// three times at_once × argon2.memory. From 1 to 256. Default: half of the
	// cores, so that a flood of log-ins leaves the others to everything else.
	// Example:
	//
	//	at_once: 4
	AtOnce int `yaml:"at_once,omitempty"`
	// Queue is how many log-ins may wait for their turn beyond at_once; others
	// are told to come again (503). Who is known by their browser waits in a
	// line of the same length of their own, which strangers do not hold up.
	// From 1 to 10000. Default: 64. Example:
	//
	//	queue: 200
	Queue int `yaml:"queue,omitempty"`
	// Wait is how long a log-in waits for its turn before it is told to come
	// again. From 10ms to 1m. Default: 5s. Example:
	//
	//	wait: 2s
	Wait time.Duration `yaml:"wait,omitempty"`
	// Length is how short a password may be. Example:
	//
	//	length: {alone: 15, with_second_factor: 10}
	Length Length `yaml:"length,omitempty"`
	// Words are what a password may not mainly consist of, beside the user's
	// own names and this site's: the company, its products, the street. At
	// least 3 characters each. Default: none. Example:
	//
	//	words: [acme, roadrunner, springfield]
	Words []string `yaml:"words,omitempty"`
	// Breached is a file made by merlon password build-filter, by which
	// passwords that others have lost already are refused. It stays on disk
	// and takes no memory. Default: none. Example:
	//
	//	breached: /var/lib/merlon/breached.filter
	Breached string `yaml:"breached,omitempty"`
	// RangeAPI is a service that is asked about lost passwords, too: it sees
	// the first 20 of the 160 bits of a password's SHA-1, never more. If it
	// does not answer, the passwords are judged without it. Default: none.
	// Example:
	//
	//	range_api: https://api.pwnedpasswords.com/range/
	RangeAPI string `yaml:"range_api,omitempty"`
	// RangeTimeout is how long range_api may take. From 100ms to 10s.
	// Default: 2s. Example:
	//
	//	range_timeout: 1s
	RangeTimeout time.Duration `yaml:"range_timeout,omitempty"`
}

// Argon2 is the cost of argon2id (RFC 9106), of which it runs one lane.
type Argon2 struct {
	// Memory is what one hash needs. From 12MiB to 256MiB. Default: 46MiB.
	// Example:
	//
	//	memory: 64MiB
	Memory merlon.Size `yaml:"memory,omitempty"`
	// Time is how often that memory is passed: at least 1 time with 46MiB, 2
	// with 19MiB and 3 with less (OWASP ASVS 5.0, appendix C), and no more
	// than makes 1GiB in all. Set it, and memory, where every replica or test
	// must hash alike. Default: measured. Example:
	//
	//	time: 2
	Time int `yaml:"time,omitempty"`
}

// Length is how many characters (Unicode code points) a password must have.
// The longest is 1024 bytes.
type Length struct {
	// Alone is for accounts that prove themselves by the password alone. From
	// 8 to 64. Default: 15 (NIST SP 800-63B-4). Example:
	//
	//	alone: 12
	Alone int `yaml:"alone,omitempty"`
	// WithSecondFactor is for accounts that must prove a second factor, too.
	// From 8 to 64. Default: 8, or alone if that is less. Example:
	//
	//	with_second_factor: 10
	WithSecondFactor int `yaml:"with_second_factor,omitempty"`
}
