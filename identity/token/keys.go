package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	lead       = 24 * time.Hour          // a key is published so long before it signs
	maxSigned  = time.Hour               // the longest that anything signed here is good
	afterwards = maxSigned + time.Minute // a key is published so long after it signed last, for clocks that are slow
	reload     = 30 * time.Second        // keys are read from the store so often
	maxStale   = time.Hour               // keys that were not read for so long are used no more
	reloadGap  = 2 * time.Second         // between two reads for a kid that nobody knows
)

// A ring is the signing keys as they were read, the first to sign first.
type ring struct {
	keys []*ownKey
	read time.Time
}

type ownKey struct {
	SigningKey
	public  publicKey
	private crypto.Signer
	signers sync.Map // of a typ: jose.Signer
}

// at returns the key that signs at a time: the latest that may.
func (r *ring) at(now time.Time) *ownKey {
	k := r.keys[0]
	for _, o := range r.keys[1:] {
		if !now.Before(o.SignFrom) {
			k = o
		}
	}
	return k
}

// published returns the keys that others may verify with at a time: those that
// sign, will sign, or signed what may still hold.
func (r *ring) published(now time.Time) []*ownKey {
	for i := range r.keys {
		if i+1 == len(r.keys) || now.Before(r.keys[i+1].SignFrom.Add(afterwards)) {
			return r.keys[i:]
		}
	}
	return nil
}

// ownKeys makes, keeps and rotates Merlon's signing keys. Which keys there are
// is decided by the store, so that replicas agree; what they are, by the
// master key, so that whoever writes to the store cannot bring in a key.
type ownKeys struct {
	store  Store
	box    *secrets.Box
	alg    string
	rotate time.Duration
	now    func() time.Time
	change func() // called when a key went away

	mu      sync.RWMutex
	ring    *ring
	next    time.Time  // no read before, for a kid that nobody knows
	reading sync.Mutex // held by who reads and rotates
	err     error      // of the last read
}

// current returns the keys, if they were read recently.
func (k *ownKeys) current() (*ring, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.ring == nil || len(k.ring.keys) == 0 || k.now().Sub(k.ring.read) > maxStale {
		err := k.err
		if err == nil {
			err = errors.New("nobody asked: Run is not running")
		}
		return nil, fmt.Errorf("the signing keys were not read for too long: %w", err)
	}
	return k.ring, nil
}

// key implements [keySource].
func (k *ownKeys) key(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (*publicKey, error) {
	p, err := k.find(kid, alg)
	if p != nil || err != nil {
		return p, err
	}
	// Another replica may have made it this moment.
	now := k.now()
	k.mu.Lock()
	early := now.Before(k.next)
	if !early {
		k.next = now.Add(reloadGap)
	}
	k.mu.Unlock()
	if !early {
		if err := k.refresh(ctx); err != nil {
			return nil, &Error{Why: TokenUnavailable, Err: err}
		}
		if p, err = k.find(kid, alg); p != nil || err != nil {
			return p, err
		}
	}
	return nil, refuse(TokenKey, "there is no key %q for %s", kid, alg)
}

func (k *ownKeys) find(kid string, alg jose.SignatureAlgorithm) (*publicKey, error) {
	r, err := k.current()
	if err != nil {
		return nil, &Error{Why: TokenUnavailable, Err: err}
	}
	for _, o := range r.published(k.now()) {
		if o.ID == kid && o.public.alg == alg {
			return &o.public, nil
		}
	}
	return nil, nil
}

// has implements [keySource].
func (k *ownKeys) has(p *publicKey) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, o := range k.ring.keys {
		if &o.public == p {
			return true
		}
	}
	return false
}

// refresh reads the keys, makes the next one when it is time, and drops those
// that nothing needs any more.
func (k *ownKeys) refresh(ctx context.Context) error {
	k.reading.Lock()
	defer k.reading.Unlock()
	err := k.read(ctx)
	// Each round either finds nothing to do or another replica ahead of it.
	for range 5 {
		if err != nil {
			break
		}
		var made bool
		if made, err = k.makeNext(ctx); err == nil && !made {
			break
		}
		if err == nil || errors.Is(err, ErrMoved) {
			err = k.read(ctx)
		}
	}
	if err == nil {
		err = k.dropOld(ctx)
	}
	k.mu.Lock()
	k.err = err
	k.mu.Unlock()
	return err
}

// read replaces the ring by what the store has. k.reading must be held.
func (k *ownKeys) read(ctx context.Context) error {
	rows, err := k.store.Keys(ctx)
	if err != nil {
		return err
	}
	k.mu.RLock()
	old := k.ring
	k.mu.RUnlock()
	r := &ring{read: k.now()}
	kept := 0
	for _, row := range rows {
		var key *ownKey
		if old != nil {
			for _, o := range old.keys {
				if o.ID == row.ID && o.SignFrom.Equal(row.SignFrom) {
					key = o
					kept++
				}
			}
		}
		if key == nil {
			if key, err = k.open(row); err != nil {
				return fmt.Errorf("signing key %q: %w", row.ID, err)
			}
		}
		r.keys = append(r.keys, key)
	}
	k.mu.Lock()
	k.ring = r
	k.mu.Unlock()
	if old != nil && kept < len(old.keys) {
		k.change()
	}
	return nil
}

// makeNext makes the next key if it is time to, and reports whether it did.
func (k *ownKeys) makeNext(ctx context.Context) (bool, error) {
	now := k.now().Truncate(time.Second)
	k.mu.RLock()
	r := k.ring
	k.mu.RUnlock()
	from, after := now, ""
	if n := len(r.keys); n > 0 {
		last := r.keys[n-1]
		due := last.SignFrom.Add(k.rotate)
		if last.Algorithm == k.alg && now.Before(due.Add(-lead)) {
			return false, nil
		}
		after = last.ID
		from = now.Add(lead)
		if last.Algorithm == k.alg && due.After(from) {
			from = due
		}
		if !from.After(last.SignFrom) {
			from = last.SignFrom.Add(time.Second)
		}
	}
	return true, k.add(ctx, now, from, after)
}

func (k *ownKeys) add(ctx context.Context, now, from time.Time, after string) error {
	private, err := generate(k.alg)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	row := SigningKey{ID: rand.Text(), Algorithm: k.alg, Created: now, SignFrom: from}
	row.Sealed = k.box.Seal(der, row.place())
	return k.store.AddKey(ctx, row, after)
}

// place binds what else is said about a key to it.
func (s SigningKey) place() string {
	return fmt.Sprintf("%s %s %d %d", s.ID, s.Algorithm, s.Created.Unix(), s.SignFrom.Unix())
}

// dropOld removes keys from the store that nobody has to verify with.
func (k *ownKeys) dropOld(ctx context.Context) error {
	k.mu.RLock()
	r := k.ring
	k.mu.RUnlock()
	// Twice as long as they are published: other replicas have other clocks.
	for _, o := range r.keys[:len(r.keys)-len(r.published(k.now().Add(-afterwards)))] {
		if err := k.store.DropKey(ctx, o.ID); err != nil {
			return err
		}
	}
	return nil
}

// replace makes a key that signs at once and drops all others.
func (k *ownKeys) replace(ctx context.Context) error {
	k.reading.Lock()
	defer k.reading.Unlock()
	rows, err := k.store.Keys(ctx)
	if err != nil {
		return err
	}
	now := k.now().Truncate(time.Second)
	after := ""
	for _, row := range rows {
		if row.SignFrom.After(now) {
			if err := k.store.DropKey(ctx, row.ID); err != nil {
				return err
			}
			continue
		}
		after = row.ID
	}
	if err := k.add(ctx, now, now, after); err != nil {
		return err
	}
	for _, row := range rows {
		if err := k.store.DropKey(ctx, row.ID); err != nil {
			return err
		}
	}
	return k.read(ctx)
}

// generate makes a private key.
func generate(alg string) (crypto.Signer, error) {
	switch alg {
	case "RS256", "PS256":
		return rsa.GenerateKey(rand.Reader, minOwnRSA)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return k, err
	}
	return nil, fmt.Errorf("no keys are made for %q", alg)
}

// open unseals a key.
func (k *ownKeys) open(row SigningKey) (*ownKey, error) {
	der, err := k.box.Open(row.Sealed, row.place())
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("signs nothing")
	}
	o := &ownKey{SigningKey: row, private: signer}
	o.public = publicKey{kid: row.ID, alg: jose.SignatureAlgorithm(row.Algorithm), key: signer.Public()}
	if err := fits(o.public.key, o.public.alg); err != nil {
		return nil, err
	}
	if p, ok := o.public.key.(*rsa.PublicKey); ok && p.N.BitLen() < minOwnRSA {
		return nil, fmt.Errorf("is an RSA key of %d bits; own ones have %d at least", p.N.BitLen(), minOwnRSA)
	}
	return o, nil
}

// sign returns a payload as a signed token of a type.
func (o *ownKey) sign(typ string, payload []byte) (string, error) {
	s, ok := o.signers.Load(typ)
	if !ok {
		var err error
		key := jose.SigningKey{Algorithm: o.public.alg, Key: jose.JSONWebKey{Key: o.private, KeyID: o.ID}}
		if s, err = jose.NewSigner(key, (&jose.SignerOptions{}).WithType(jose.ContentType(typ))); err != nil {
			return "", err
		}
		o.signers.Store(typ, s)
	}
	jws, err := s.(jose.Signer).Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// jwks returns the public halves of keys.
func jwks(keys []*ownKey) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: make([]jose.JSONWebKey, 0, len(keys))}
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.public.key, KeyID: k.ID, Algorithm: k.Algorithm, Use: "sig"})
	}
	return json.Marshal(set)
}
