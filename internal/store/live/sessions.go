package live

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/identity/session"
)

// The keys. What belongs to one account is in one hash, which alone says which
// sessions there are; the others only help to find it, and pointing to what is
// gone does no harm.
//
//	merlon:session:{ACCOUNT}   HASH    H: the session's JSON; H:t: its times, see [state]
//	merlon:session:at:H        STRING  ACCOUNT
//	merlon:session:sid:P       SET     ACCOUNT…, P being the hash of issuer and sid
//	merlon:session:sub:P       SET     ACCOUNT…, P being the hash of issuer and subject
//	merlon:session:ended       channel H H …
//
// H is the session's hash in hex, ACCOUNT a hash of the account's id. All keys
// expire with the last session that they belong to.
const (
	prefix  = "merlon:session:"
	channel = prefix + "ended"
)

// digest returns what stands for texts in a key.
func digest(texts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return base64.RawURLEncoding.EncodeToString(sum[:18])
}

func accountKey(tag string) string { return prefix + "{" + tag + "}" }
func pointerKey(h string) string   { return prefix + "at:" + h }

func micros(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }

func fromMicros(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return time.UnixMicro(n).UTC(), err
}

// Sessions is a [session.Store].
type Sessions struct {
	link Link

	mu sync.Mutex
	at map[session.Hash]string // the accounts' tags of sessions; they never change
}

var _ session.Store = (*Sessions)(nil)

// maxAt bounds how many tags are kept, about 20 MiB of them.
const maxAt = 1 << 17

// SessionRights are what the ACL user of [Sessions] needs; for a cluster or
// Sentinels as well.
const SessionRights = "~" + prefix + "* &" + channel + " +evalsha +eval +get +set +hget +hmget +hexists +hgetall +hset +hdel" +
	" +sadd +smembers +pexpireat +pttl +time +publish +subscribe +unsubscribe" +
	" +ping +hello +auth +select +role +client +cluster|slots +cluster|shards"

// NewSessions returns the sessions in a server.
func NewSessions(l Link) *Sessions {
	return &Sessions{link: l, at: make(map[session.Hash]string)}
}

// state writes what of a session changes, and what is compared: in order
// Created, Seen, Expires and Until in microseconds, and 1 if it is retired.
func state(s *session.Session) string {
	retired := "0"
	if s.Retired {
		retired = "1"
	}
	return micros(s.Created) + " " + micros(s.Seen) + " " + micros(s.Expires) + " " + micros(s.Until) + " " + retired
}

// decode reads what [state] and the session's JSON say.
func decode(body, st string) (session.Session, error) {
	var s session.Session
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		return s, fmt.Errorf("redis: a session cannot be read: %w", err)
	}
	f := strings.Fields(st)
	if len(f) != 5 {
		return s, errors.New("redis: the times of a session cannot be read")
	}
	var errs [2]error
	s.Seen, errs[0] = fromMicros(f[1])
	s.Expires, errs[1] = fromMicros(f[2])
	s.Retired = f[4] == "1"
	return s, errors.Join(errs[:]...)
}

// Put implements [session.Store].
func (s *Sessions) Put(ctx context.Context, n session.Session, atMost int) ([]session.Hash, error) {
	c, err := s.link()
	if err != nil {
		return nil, err
	}
	tag, body, err := announce(ctx, c, &n)
	if err != nil {
		return nil, err
	}
	return hashes(putScript.Exec(ctx, c, []string{accountKey(tag)},
		[]string{n.Hash.String(), body, state(&n), micros(n.Issued), strconv.Itoa(atMost), n.ID, channel}))
}

// announce makes a session findable before it is there.
func announce(ctx context.Context, c rueidis.Client, n *session.Session) (tag, body string, err error) {
	b, err := json.Marshal(n)
	if err != nil {
		return "", "", err
	}
	tag = digest(n.Account)
	until := n.Until.UnixMilli() + 1
	point := c.B().Set().Key(pointerKey(n.Hash.String())).Value(tag).PxatMillisecondsTimestamp(until).Build()
	if err := c.Do(ctx, point).Error(); err != nil {
		return "", "", err
	}
	if n.Issuer != "" {
		for _, key := range providerKeys(n.Issuer, n.Subject, n.SID) {
			if err := indexScript.Exec(ctx, c, []string{key}, []string{tag, strconv.FormatInt(until, 10)}).Error(); err != nil {
				return "", "", err
			}
		}
	}
	return tag, string(b), nil
}

// providerKeys returns the keys of the provider's words that are not empty.
func providerKeys(issuer, subject, sid string) []string {
	var keys []string
	if sid != "" {
		keys = append(keys, prefix+"sid:"+digest(issuer, sid))
	}
	if subject != "" {
		keys = append(keys, prefix+"sub:"+digest(issuer, subject))
	}
	return keys
}

// tag returns the tag of a session's account; [session.ErrNotFound] if it has
// none.
func (s *Sessions) tag(ctx context.Context, c rueidis.Client, h session.Hash) (string, error) {
	s.mu.Lock()
	tag, ok := s.at[h]
	s.mu.Unlock()
	if ok {
		return tag, nil
	}
	tag, err := c.Do(ctx, c.B().Get().Key(pointerKey(h.String())).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", session.ErrNotFound
	} else if err != nil {
		return "", err
	}
	s.remember(h, tag)
	return tag, nil
}

func (s *Sessions) remember(h session.Hash, tag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.at) >= maxAt {
		n := 0
		for old := range s.at { // any of them: what is in use is asked for again
			delete(s.at, old)
			if n++; n == maxAt/16 {
				break
			}
		}
	}
	s.at[h] = tag
}

func (s *Sessions) disremember(hashes []session.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range hashes {
		delete(s.at, h)
	}
}

// Get implements [session.Store].
func (s *Sessions) Get(ctx context.Context, h session.Hash) (session.Session, error) {
	c, err := s.link()
	if err != nil {
		return session.Session{}, err
	}
	tag, err := s.tag(ctx, c, h)
	if err != nil {
		return session.Session{}, err
	}
	field := h.String()
	v, err := c.Do(ctx, c.B().Hmget().Key(accountKey(tag)).Field(field, field+":t").Build()).ToArray()
	if err != nil {
		return session.Session{}, err
	}
	if len(v) != 2 || v[0].IsNil() || v[1].IsNil() {
		s.disremember([]session.Hash{h})
		return session.Session{}, session.ErrNotFound
	}
	body, err := v[0].ToString()
	if err != nil {
		return session.Session{}, err
	}
	st, err := v[1].ToString()
	if err != nil {
		return session.Session{}, err
	}
	return decode(body, st)
}

// Touch implements [session.Store].
func (s *Sessions) Touch(ctx context.Context, h session.Hash, seen, expires time.Time) error {
	c, err := s.link()
	if err != nil {
		return err
	}
	tag, err := s.tag(ctx, c, h)
	if err != nil {
		return err
	}
	return found(touchScript.Exec(ctx, c, []string{accountKey(tag)}, []string{h.String(), micros(seen), micros(expires)}))
}

// Rotate implements [session.Store].
func (s *Sessions) Rotate(ctx context.Context, old session.Hash, grace time.Time, n session.Session) error {
	c, err := s.link()
	if err != nil {
		return err
	}
	tag, body, err := announce(ctx, c, &n)
	if err != nil {
		return err
	}
	return found(rotateScript.Exec(ctx, c, []string{accountKey(tag)},
		[]string{old.String(), micros(grace), n.Hash.String(), body, state(&n), n.ID}))
}

// found reads the answer of a script that says whether there was something.
func found(r rueidis.RedisResult) error {
	n, err := r.AsInt64()
	if err == nil && n == 0 {
		return session.ErrNotFound
	}
	return err
}

// accounts returns the tags of the accounts that may have what w selects, and
// where they are.
func (s *Sessions) accounts(ctx context.Context, w session.Where) (c rueidis.Client, tags []string, err error) {
	if c, err = s.link(); err != nil {
		return nil, nil, err
	}
	switch {
	case w.Account != "":
		tags = []string{digest(w.Account)}
	case w.Issuer != "" && (w.SID != "" || w.Subject != ""):
		// Either set has every account that is meant.
		key := providerKeys(w.Issuer, w.Subject, w.SID)[0]
		tags, err = c.Do(ctx, c.B().Smembers().Key(key).Build()).AsStrSlice()
	}
	return c, tags, err
}

// End implements [session.Store].
func (s *Sessions) End(ctx context.Context, w session.Where) ([]session.Hash, error) {
	c, tags, err := s.accounts(ctx, w)
	if err != nil {
		return nil, err
	}
	var ended []session.Hash
	var errs []error
	for _, tag := range tags {
		hs, err := hashes(endScript.Exec(ctx, c, []string{accountKey(tag)},
			[]string{w.ID, w.Except, w.Issuer, w.Subject, w.SID, channel}))
		ended = append(ended, hs...)
		errs = append(errs, err)
	}
	s.disremember(ended)
	return ended, errors.Join(errs...)
}

// hashes reads a list of hashes.
func hashes(r rueidis.RedisResult) ([]session.Hash, error) {
	texts, err := r.AsStrSlice()
	if err != nil {
		return nil, err
	}
	return parseHashes(texts)
}

func parseHashes(texts []string) ([]session.Hash, error) {
	var list []session.Hash
	for _, text := range texts {
		var h session.Hash
		if err := h.UnmarshalText([]byte(text)); err != nil {
			return list, fmt.Errorf("redis: the hash of a session cannot be read: %w", err)
		}
		list = append(list, h)
	}
	return list, nil
}

// Find implements [session.Store].
func (s *Sessions) Find(ctx context.Context, w session.Where) ([]session.Session, error) {
	c, tags, err := s.accounts(ctx, w)
	if err != nil {
		return nil, err
	}
	var list []session.Session
	for _, tag := range tags {
		of, err := all(ctx, c, tag)
		if err != nil {
			return nil, err
		}
		for _, n := range of {
			if w.Match(&n) && !n.Retired {
				list = append(list, n)
			}
		}
	}
	return list, nil
}

// List implements [session.Store].
func (s *Sessions) List(ctx context.Context, account string, now time.Time) ([]session.Session, error) {
	c, err := s.link()
	if err != nil {
		return nil, err
	}
	of, err := all(ctx, c, digest(account))
	if err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(of, func(n session.Session) bool {
		return n.Account != account || n.Retired || !n.Expires.After(now)
	})
	slices.SortFunc(list, func(a, b session.Session) int { return b.Created.Compare(a.Created) })
	return list, nil
}

// all returns every session of an account.
func all(ctx context.Context, c rueidis.Client, tag string) ([]session.Session, error) {
	fields, err := c.Do(ctx, c.B().Hgetall().Key(accountKey(tag)).Build()).AsStrMap()
	if err != nil {
		return nil, err
	}
	var list []session.Session
	for field, body := range fields {
		if strings.HasSuffix(field, ":t") {
			continue
		}
		n, err := decode(body, fields[field+":t"])
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

// Gone implements [session.Store].
func (s *Sessions) Gone(ctx context.Context, hs []session.Hash) ([]session.Hash, error) {
	if len(hs) == 0 {
		return nil, nil
	}
	c, err := s.link()
	if err != nil {
		return nil, err
	}
	tags, err := s.tags(ctx, c, hs)
	if err != nil {
		return nil, err
	}
	var gone, asked []session.Hash
	var cmds rueidis.Commands
	for i, h := range hs {
		if tags[i] == "" {
			gone = append(gone, h)
			continue
		}
		asked = append(asked, h)
		cmds = append(cmds, c.B().Hexists().Key(accountKey(tags[i])).Field(h.String()).Build())
	}
	for i, r := range c.DoMulti(ctx, cmds...) {
		there, err := r.AsBool()
		if err != nil {
			return nil, err
		}
		if !there {
			gone = append(gone, asked[i])
		}
	}
	return gone, nil
}

// tags returns the tags of many; empty for those that have none.
func (s *Sessions) tags(ctx context.Context, c rueidis.Client, hs []session.Hash) ([]string, error) {
	tags := make([]string, len(hs))
	var asked []int
	var cmds rueidis.Commands
	s.mu.Lock()
	for i, h := range hs {
		if tag, ok := s.at[h]; ok {
			tags[i] = tag
			continue
		}
		asked = append(asked, i)
		cmds = append(cmds, c.B().Get().Key(pointerKey(h.String())).Build())
	}
	s.mu.Unlock()
	if len(cmds) == 0 {
		return tags, nil
	}
	for j, r := range c.DoMulti(ctx, cmds...) {
		tag, err := r.ToString()
		if rueidis.IsRedisNil(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		tags[asked[j]] = tag
		s.remember(hs[asked[j]], tag)
	}
	return tags, nil
}

// Watch implements [session.Store].
func (s *Sessions) Watch(ctx context.Context, ready func(), ended func([]session.Hash)) error {
	c, err := s.link()
	if err != nil {
		return err
	}
	var once sync.Once
	hooked := rueidis.WithOnSubscriptionHook(ctx, func(p rueidis.PubSubSubscription) {
		if p.Kind == "subscribe" {
			once.Do(ready)
		}
	})
	err = c.Receive(hooked, c.B().Subscribe().Channel(channel).Build(), func(m rueidis.PubSubMessage) {
		list, _ := parseHashes(strings.Fields(m.Message)) // what cannot be read is found by asking
		s.disremember(list)
		ended(list)
	})
	if err == nil {
		err = errors.New("redis: the subscription ended")
	}
	return err
}
