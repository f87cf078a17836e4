package mfa_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	shop = "https://shop.example.com"
	wiki = "https://wiki.example.com"
)

// A world is a store with two accounts, and factors with a clock to set.
type world struct {
	*mfa.Factors
	store    account.Store
	ann, bob account.Account
	start    time.Time
	skip     atomic.Int64 // how far the clock is from start
}

func newWorld(t testing.TB, c mfa.Config) *world {
	t.Helper()
	db, err := store.Open(context.Background(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w := worldOf(t, c, db.Accounts())
	for _, a := range []account.Account{w.ann, w.bob} {
		if err := w.store.Create(context.Background(), a); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// worldOf is a world of factors alone.
func worldOf(t testing.TB, c mfa.Config, s account.Store) *world {
	t.Helper()
	w := &world{store: s, start: time.Now()}
	w.Factors = open(t, c, w.store, strings.Repeat("k", 32))
	w.SetNow(w.now)
	w.ann = account.Account{ID: rand.Text(), Name: "ann", Display: "Ann", Created: w.start}
	w.bob = account.Account{ID: rand.Text(), Name: "bob", Created: w.start}
	return w
}

func open(t testing.TB, c mfa.Config, s account.Store, key string) *mfa.Factors {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(key))
	if err != nil {
		t.Fatal(err)
	}
	f, err := mfa.New(c, k, s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// at sets how far from the start the clock is.
func (w *world) at(d time.Duration) { w.skip.Store(int64(d)) }

func (w *world) now() time.Time { return w.start.Add(time.Duration(w.skip.Load())) }

func wants(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// race calls try from many goroutines at once and returns how many got
// through; the others must all fail with one of the errors.
func race(t *testing.T, try func() error, others ...error) int {
	t.Helper()
	var in atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range 16 {
		wg.Go(func() {
			<-start
			err := try()
			if err == nil {
				in.Add(1)
				return
			}
			for _, o := range others {
				if errors.Is(err, o) {
					return
				}
			}
			t.Error(err)
		})
	}
	close(start)
	wg.Wait()
	return int(in.Load())
}

// A device holds one credential, and is somebody's browser too.
type device struct {
	rp   virtualwebauthn.RelyingParty
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
}

func newDevice(origin string) *device {
	_, host, _ := strings.Cut(origin, "://")
	host, _, _ = strings.Cut(host, ":")
	return &device{
		rp:   virtualwebauthn.RelyingParty{ID: host, Name: "Merlon", Origin: origin},
		auth: virtualwebauthn.NewAuthenticator(),
		cred: newCredential(),
	}
}

// newCredential returns one with a P-256 key. The library writes coordinates
// without their leading zeros, which RFC 9053 wants; such keys are left out.
func newCredential() virtualwebauthn.Credential {
	for {
		if c := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2); len(c.Key.AttestationData()) == 77 {
			return c
		}
	}
}

// create answers navigator.credentials.create.
func (d *device) create(t testing.TB, c mfa.Ceremony) []byte {
	t.Helper()
	o, err := virtualwebauthn.ParseAttestationOptions(string(c.Options))
	if err != nil {
		t.Fatal(err)
	}
	d.auth.Options.UserHandle = []byte(o.UserID)
	return []byte(virtualwebauthn.CreateAttestationResponse(d.rp, d.auth, d.cred, *o))
}

// get answers navigator.credentials.get, and counts.
func (d *device) get(t testing.TB, c mfa.Ceremony) []byte {
	t.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(string(c.Options))
	if err != nil {
		t.Fatal(err)
	}
	if d.cred.Counter > 0 {
		d.cred.Counter++
	}
	return []byte(virtualwebauthn.CreateAssertionResponse(d.rp, d.auth, d.cred, *o))
}

// resign changes what the browser says about itself in an answer, and has the
// device sign that.
func (d *device) resign(t testing.TB, answer []byte, change func(map[string]any)) []byte {
	t.Helper()
	var whole, client map[string]any
	if err := json.Unmarshal(answer, &whole); err != nil {
		t.Fatal(err)
	}
	response := whole["response"].(map[string]any)
	text := func(name string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(response[name].(string))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := json.Unmarshal(text("clientDataJSON"), &client); err != nil {
		t.Fatal(err)
	}
	change(client)
	said, err := json.Marshal(client)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(said)
	signed := sha256.Sum256(append(text("authenticatorData"), hash[:]...))
	sig, err := d.cred.Key.Sign(signed[:])
	if err != nil {
		t.Fatal(err)
	}
	response["clientDataJSON"] = base64.RawURLEncoding.EncodeToString(said)
	response["signature"] = base64.RawURLEncoding.EncodeToString(sig)
	out, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// registered makes a passkey or security key of the account at an origin.
func (w *world) registered(t testing.TB, origin string, a account.Account, kind string) *device {
	t.Helper()
	d := newDevice(origin)
	w.register(t, d, a, kind)
	return d
}

func (w *world) register(t testing.TB, d *device, a account.Account, kind string) {
	t.Helper()
	d.auth.Options.UserNotVerified = kind == account.BySecurityKey
	c, err := w.BeginRegister(context.Background(), d.rp.Origin, a, kind)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.FinishRegister(context.Background(), d.rp.Origin, a.ID, kind, c.Ticket, "", d.create(t, c)); err != nil {
		t.Fatal(err)
	}
}

// enrolled makes an authenticator app of the account, and returns its secret.
func (w *world) enrolled(t testing.TB, a account.Account) string {
	t.Helper()
	e, err := w.EnrolTOTP(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.ReplaceAll(e.Secret, " ", "")
	// With the code before, so that the present one is still unused.
	if _, err := w.ConfirmTOTP(context.Background(), a.ID, e.Ticket, code(t, secret, w.now().Add(-30*time.Second)), "phone"); err != nil {
		t.Fatal(err)
	}
	return secret
}
