package token

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// refreshPrefix tells refresh secrets from everything else, for people and for
// programs that look for leaked ones.
const refreshPrefix = "mr_"

// A refresh secret is written "mr_<family>_<generation>_<secret>.<seal>", with
// 32 bytes each in base64url: the secret, random or derived from the one
// before it, and a seal over the rest, by which any secret that was ever given
// out is told from a guess without being stored. So a guess revokes nothing.
type refreshSecret struct {
	family     string
	generation int
	secret     [32]byte
}

// refreshKeys derive and seal secrets.
type refreshKeys struct{ next, seal []byte }

func mac(key []byte, texts ...string) (sum [32]byte) {
	h := hmac.New(sha256.New, key)
	for _, t := range texts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	h.Sum(sum[:0])
	return sum
}

// successor returns the one secret that follows: the same for everybody who
// has this one, so that two tabs that refresh at once agree without the store
// holding what it could give away.
func (k *refreshKeys) successor(s refreshSecret) refreshSecret {
	gen := strconv.Itoa(s.generation + 1)
	return refreshSecret{s.family, s.generation + 1, mac(k.next, s.family, gen, string(s.secret[:]))}
}

func (k *refreshKeys) write(s refreshSecret) string {
	head := refreshPrefix + s.family + "_" + strconv.Itoa(s.generation) + "_" + base64url.EncodeToString(s.secret[:])
	seal := mac(k.seal, head)
	return head + "." + base64url.EncodeToString(seal[:])
}

// maxRefresh is how many bytes a refresh secret may have.
const maxRefresh = 256

func (k *refreshKeys) read(text string) (refreshSecret, bool) {
	head, seal, ok := strings.Cut(text, ".")
	if !ok || len(text) > maxRefresh {
		return refreshSecret{}, false
	}
	want := mac(k.seal, head)
	if subtle.ConstantTimeCompare([]byte(base64url.EncodeToString(want[:])), []byte(seal)) != 1 {
		return refreshSecret{}, false
	}
	// Ours, so it has the form that write gave it.
	var s refreshSecret
	rest := strings.TrimPrefix(head, refreshPrefix)
	s.family, rest, _ = strings.Cut(rest, "_")
	gen, secret, _ := strings.Cut(rest, "_")
	n, err := strconv.Atoi(gen)
	b, err2 := base64url.DecodeString(secret)
	if err != nil || err2 != nil || len(b) != len(s.secret) {
		return refreshSecret{}, false
	}
	s.generation = n
	copy(s.secret[:], b)
	return s, true
}

func hashOf(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

// StartRefresh begins a family of refresh secrets.
func (s *Service) StartRefresh(ctx context.Context, g Grant) (Refresh, error) {
	if g.Subject == "" || g.Client == "" {
		return Refresh{}, errors.New("a refresh family needs a subject and a client")
	}
	now := s.now()
	first := refreshSecret{family: rand.Text()}
	_, _ = rand.Read(first.secret[:]) // never fails
	text := s.refreshKeys.write(first)
	f := Family{
		ID: first.family, Hash: hashOf(text), Grant: g,
		Rotated: now, Started: now, Expires: now.Add(s.refresh.Absolute),
	}
	f.Idle = s.idle(f, now)
	if err := s.store.AddFamily(ctx, f); err != nil {
		return Refresh{}, err
	}
	return Refresh{Secret: text, Family: f.ID, Expires: f.Idle}, nil
}

// idle returns when a family ends that is used now: never later than it must.
func (s *Service) idle(f Family, now time.Time) time.Time {
	if idle := now.Add(s.refresh.Idle); idle.Before(f.Expires) {
		return idle
	}
	return f.Expires
}

// UseRefresh turns a refresh secret into the next one, and returns what the
// family stands for, so that the caller issues an access token from what its
// account is today. A secret that was replaced more than the grace ago revokes
// its family. Errors are [*Error] with a Refresh reason, or the store's.
func (s *Service) UseRefresh(ctx context.Context, secret, client string) (Grant, Refresh, error) {
	given, ok := s.refreshKeys.read(secret)
	if !ok {
		return Grant{}, Refresh{}, refuse(RefreshUnknown, "is no refresh secret of ours")
	}
	// The second time is for one that was overtaken by another tab.
	for range 2 {
		f, err := s.store.Family(ctx, given.family)
		if errors.Is(err, ErrNotFound) {
			return Grant{}, Refresh{}, refuse(RefreshUnknown, "there is no such family")
		}
		if err != nil {
			return Grant{}, Refresh{}, err
		}
		now := s.now()
		next, rotate, err := s.judgeRefresh(ctx, f, given, secret, client, now)
		if err != nil {
			return Grant{}, Refresh{}, err
		}
		if !rotate {
			return f.Grant, Refresh{next, f.ID, f.Idle}, nil
		}
		idle := s.idle(f, now)
		err = s.store.RotateFamily(ctx, f.ID, f.Hash, hashOf(next), now, idle)
		if err == nil {
			return f.Grant, Refresh{next, f.ID, idle}, nil
		}
		if !errors.Is(err, ErrMoved) {
			return Grant{}, Refresh{}, err
		}
	}
	return Grant{}, Refresh{}, fmt.Errorf("the refresh family %s %w", given.family, ErrMoved)
}

// judgeRefresh returns the successor of a secret, and whether the family has
// to be moved on to it or was already.
func (s *Service) judgeRefresh(ctx context.Context, f Family, given refreshSecret, text, client string, now time.Time) (next string, rotate bool, err error) {
	hash := hashOf(text)
	end := func(why merlon.Reason, text string) (string, bool, error) {
		e := &Error{Why: why, Err: errors.New(text), Subject: f.Grant.Subject, Family: f.ID}
		if err := s.store.RevokeFamily(ctx, f.ID); err != nil {
			// Refused in any case, and told that the thief may go on.
			e.Err = fmt.Errorf("%s; the family could not be revoked: %w", text, err)
		}
		return "", false, e
	}
	switch {
	case f.Revoked:
		return "", false, &Error{Why: RefreshUnknown, Err: errors.New("the family was revoked"), Subject: f.Grant.Subject}
	case !now.Before(f.Expires) || !now.Before(f.Idle):
		return "", false, &Error{Why: RefreshExpired, Subject: f.Grant.Subject}
	case subtle.ConstantTimeCompare([]byte(client), []byte(f.Grant.Client)) != 1:
		return end(RefreshClient, "used by client "+strconv.Quote(shorten(client))+", given to "+strconv.Quote(f.Grant.Client))
	case given.generation > f.Generation:
		return end(RefreshLost, "is newer than what the store has")
	}
	next = s.refreshKeys.write(s.refreshKeys.successor(given))
	switch {
	case given.generation == f.Generation && subtle.ConstantTimeCompare(hash, f.Hash) == 1:
		return next, true, nil
	case subtle.ConstantTimeCompare(hash, f.Previous) == 1 &&
		now.Sub(f.Rotated) < s.refresh.Grace && subtle.ConstantTimeCompare(hashOf(next), f.Hash) == 1:
		return next, false, nil
	}
	return end(RefreshReused, "was replaced "+now.Sub(f.Rotated).Round(time.Second).String()+" ago or longer")
}

func shorten(s string) string {
	if len(s) <= 120 {
		return s
	}
	return strings.ToValidUTF8(s[:120], "") + "…"
}

// EndRefresh revokes the family of a refresh secret: a client's log-out (RFC
// 7009). It is no error if there is none.
func (s *Service) EndRefresh(ctx context.Context, secret, client string) error {
	given, ok := s.refreshKeys.read(secret)
	if !ok {
		return nil
	}
	f, err := s.store.Family(ctx, given.family)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && f.Grant.Client != client:
		return nil
	case err != nil:
		return err
	}
	return s.store.RevokeFamily(ctx, f.ID)
}
