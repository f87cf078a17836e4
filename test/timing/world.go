package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/descope/virtualwebauthn"
	"golang.org/x/crypto/bcrypt"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	site   = "shop.example.com"
	origin = "https://" + site
	right  = "correct horse battery staple"
	// triesOfName is how often one name is tried at most, far from what locks
	// an account.
	triesOfName = 20
	oldCost     = 9 // of the bcrypt hashes that were imported
)

// A world is desks over one store.
type world struct {
	dir     string
	key     secrets.Key
	db      *store.DB
	factors *mfa.Factors
	desk    *identity.Desk
	mixed   *identity.Desk // where some accounts have imported hashes
	basic   *identity.BasicProver
	pages   *browser
	names   int    // accounts of each kind
	calls   int    // so far; each comes from a network of its own
	nobodys string // the secret of a link that is not stored
	stop    []func()
}

// letters drops what it is given, as a mailer that is quick would.
type letters struct{}

// Letter implements identity.Letters.
func (letters) Letter(identity.Letter) {}

func newWorld(ctx context.Context, tries int) (w *world, err error) {
	_, secret := identity.NewLink(account.RecoverLink, "nobody", time.Now())
	w = &world{names: max(20, tries/triesOfName), nobodys: secret.Reveal()}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.dir, err = os.MkdirTemp("", "merlon-timing-"); err != nil {
		return nil, err
	}
	if w.key, err = secrets.NewKey(secrets.New(rand.Text() + rand.Text())); err != nil {
		return nil, err
	}
	if w.db, err = store.Open(ctx, store.Config{Dir: w.dir}); err != nil {
		return nil, err
	}
	if w.factors, err = mfa.New(mfa.Config{}, w.key, w.db.Accounts()); err != nil {
		return nil, err
	}
	env, err := w.env()
	if err != nil {
		return nil, err
	}
	if err := w.populate(ctx, env.Hasher); err != nil {
		return nil, err
	}
	c := identity.Config{
		Login:    []identity.Rule{{Groups: []string{"staff"}}, {Groups: []string{"inside"}, From: []string{"10.8.0.0/16"}}},
		Register: "open", RegisterDomains: []string{"example.com"}, Basic: &identity.Basic{},
	}
	if w.desk, err = w.open(c, env); err != nil {
		return nil, err
	}
	if w.basic, err = identity.NewBasic(c, env, func(*merlon.Request) bool { return true }); err != nil {
		return nil, err
	}
	if env, err = w.env(); err != nil {
		return nil, err
	}
	w.mixed, err = w.open(c, env)
	// What the gateway does at its start with each kind of hash that it finds.
	for _, of := range []string{name("known", 0), name("older", 0)} {
		a, lookup := w.db.Accounts().ByName(ctx, of)
		err = errors.Join(err, lookup, env.Hasher.Rehearse(ctx, a.Password))
	}
	if err != nil {
		return nil, err
	}
	w.pages, err = w.serve(ctx)
	return w, err
}

// env is what a desk works with. Each has a hasher of its own, which knows what
// kinds of hashes there are.
func (w *world) env() (identity.Env, error) {
	c := password.Config{Argon2: password.Argon2{Memory: 12 << 20, Time: 3}}
	hasher, err := password.New(c)
	policy, perr := password.NewPolicy(c)
	// Nobody has to wait here: that is measured elsewhere, and not in time.
	throttle, terr := attempts.New(attempts.Config{
		Alarm: 1_000_000, Account: attempts.Schedule{Free: 100_000}, Mail: attempts.Schedule{Free: 100_000},
		Spray: attempts.Schedule{Free: 100_000},
	}, w.key, nil, nil)
	sessions, serr := session.New(session.Config{}, session.NewMemory(0), w.db.Accounts())
	if err := errors.Join(err, perr, terr, serr); err != nil {
		return identity.Env{}, err
	}
	w.stop = append(w.stop, sessions.Close, func() { _ = policy.Close() }) // it has no file open
	return identity.Env{
		Key: w.key, Accounts: w.db.Accounts(), Hasher: hasher, Policy: policy, Sessions: sessions, Factors: w.factors,
		Throttle: throttle, Letters: letters{}, Event: func(identity.Event) {},
	}, nil
}

func (w *world) open(c identity.Config, env identity.Env) (*identity.Desk, error) {
	d, err := identity.NewDesk(c, env)
	if err == nil {
		w.stop = append(w.stop, d.Close)
	}
	return d, err
}

// populate makes the accounts: of each kind as many.
func (w *world) populate(ctx context.Context, h *password.Hasher) error {
	hash, err := h.Hash(ctx, right)
	if err != nil {
		return err
	}
	old, err := bcrypt.GenerateFromPassword([]byte(right), oldCost)
	if err != nil {
		return err
	}
	for i := range w.names {
		for _, a := range []account.Account{
			{Name: "known", Password: hash, Groups: []string{"staff"}},
			{Name: "ended", Password: hash, Groups: []string{"staff"}, Disabled: true},
			{Name: "place", Password: hash, Groups: []string{"inside"}},
			{Name: "empty", Groups: []string{"staff"}},
			{Name: "older", Password: string(old), Groups: []string{"staff"}},
			{Name: "phone", Password: hash, Groups: []string{"staff"}},
		} {
			a.Name = name(a.Name, i)
			a.ID, a.Email, a.EmailVerified = "ID-OF-"+a.Name, a.Name+"@example.com", true
			a.Created = time.Now().Add(-time.Hour)
			if err := w.db.Accounts().Create(ctx, a); err != nil {
				return err
			}
			if strings.HasPrefix(a.Name, "phone") {
				if err := w.addPasskey(ctx, a); err != nil {
					return fmt.Errorf("a passkey: %w", err)
				}
			}
		}
	}
	return nil
}

func (w *world) addPasskey(ctx context.Context, a account.Account) error {
	c, err := w.factors.BeginRegister(ctx, origin, a, account.Passkey)
	if err != nil {
		return err
	}
	o, err := virtualwebauthn.ParseAttestationOptions(string(c.Options))
	if err != nil {
		return err
	}
	// The library writes coordinates without their leading zeros, which RFC
	// 9053 wants; such keys are left out.
	key := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
	for len(key.Key.AttestationData()) != 77 {
		key = virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
	}
	device := virtualwebauthn.NewAuthenticator()
	device.Options.UserHandle = []byte(o.UserID)
	rp := virtualwebauthn.RelyingParty{ID: site, Name: "Merlon", Origin: origin}
	answer := virtualwebauthn.CreateAttestationResponse(rp, device, key, *o)
	_, err = w.factors.FinishRegister(ctx, origin, a.ID, account.Passkey, c.Ticket, "phone", []byte(answer))
	return err
}

func (w *world) close() {
	for i := range w.stop {
		w.stop[len(w.stop)-1-i]()
	}
	if w.db != nil {
		_ = w.db.Close() // it is removed next
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// visit is a request from where nobody has come from before.
func (w *world) visit(ctx context.Context) identity.Visit {
	hr, err := http.NewRequestWithContext(ctx, http.MethodPost, origin+"/.merlon/login", nil)
	if err != nil {
		panic(err) // it is written right above
	}
	hr.Header.Set("User-Agent", "Firefox")
	r := merlon.NewRequest(hr)
	w.calls++
	r.Site, r.Client = site, netip.MustParseAddr(fmt.Sprintf("2001:%x:%x::1", 0x4000+w.calls>>16, w.calls&0xffff))
	return identity.Visit{Request: r, Header: http.Header{}, Origin: origin}
}

// name is the log-in name of one of a kind.
func name(of string, i int) string { return fmt.Sprintf("%s%06d", of, i) }

// typed is what is typed in the i-th try of a kind: a log-in name, or as often
// an address.
func (w *world) typed(of string, i int) string {
	n := name(of, i%w.names)
	if i/w.names%2 == 1 {
		n += "@example.com"
	}
	return n
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(text)); err == nil && len(f) > 0 {
		return f[0]
	}
	return "unknown"
}

func cpus() string { return fmt.Sprintf("%d CPUs, %s", runtime.NumCPU(), runtime.Version()) }
