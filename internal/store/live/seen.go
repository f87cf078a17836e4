package live

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/identity/oidc"
)

// The keys of what may come once only: the hash of what it is, which others
// may have chosen.
//
//	merlon:o:{SHA-256}  STRING  1
const seenPrefix = "merlon:o:"

// SeenRights are what the ACL user of [Seen] needs, beside those of holding a connection.
const SeenRights = "~" + seenPrefix + "* +set"

const (
	// seenWithin is how long a server may take to answer.
	seenWithin = time.Second
	// seenLeast is how long everything is remembered, so that no clock that is
	// ahead makes it forgotten at once.
	seenLeast = time.Minute
)

// Seen is an [oidc.Seen] that replicas share: of all who bring the same at the
// same time, to whichever of them, one is the first. If the server does not
// answer, nobody is.
type Seen struct{ link Link }

var _ oidc.Seen = Seen{}

// NewSeen returns what a server has seen.
func NewSeen(l Link) Seen { return Seen{l} }

// First implements [oidc.Seen]. It hands the server a length of time, so that
// the server's clock may be another.
func (s Seen) First(ctx context.Context, id string, until time.Time) (bool, error) {
	c, err := s.link()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	sum := sha256.Sum256([]byte(id))
	lives := max(time.Until(until), seenLeast)
	key := seenPrefix + hex.EncodeToString(sum[:])
	err = c.Do(ctx, c.B().Set().Key(key).Value("1").Nx().PxMilliseconds(lives.Milliseconds()+1).Build()).Error()
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	return err == nil, err
}
