package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/apikey"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	benchSite = "shop.example.com"
	benchUser = "user0"
	// crowd is how many accounts there are, each with benchSessions sessions.
	crowd         = 64
	benchSessions = 4
	// tokensMade is how many tokens there are of each algorithm to verify for
	// the first time.
	tokensMade = 2 * inARow
)

// people is whoever proves something, with all that it takes to check it.
type people struct {
	dir      string
	key      secrets.Key
	db       *store.DB
	managers []*session.Manager
	stop     []func()
	missing  []string
}

// newPeople makes accounts in a SQLite database. What it returns must be
// closed in any case.
func newPeople() (p *people, err error) {
	p = &people{}
	if p.dir, err = os.MkdirTemp("", "merlon-bench-"); err != nil {
		return p, err
	}
	if p.key, err = secrets.NewKey(secrets.New(rand.Text() + rand.Text())); err != nil {
		return p, err
	}
	if p.db, err = store.Open(context.Background(), store.Config{Dir: p.dir}); err != nil {
		return p, err
	}
	for i := range crowd {
		if err := p.db.Accounts().Create(context.Background(), benchAccount(i)); err != nil {
			return p, err
		}
	}
	return p, nil
}

func benchAccount(i int) account.Account {
	name := fmt.Sprintf("user%d", i)
	return account.Account{
		ID: "ID-OF-" + name, Name: name, Email: name + "@example.com", EmailVerified: true,
		Groups: []string{"customers", "staff"}, Roles: []string{"editor", "member"}, Created: time.Now().Add(-time.Hour),
	}
}

func (p *people) close() error {
	for _, m := range p.managers {
		m.Close()
	}
	for _, stop := range p.stop {
		stop()
	}
	var err error
	if p.db != nil {
		err = p.db.Close()
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

// benchRequest is what a page's script fetches, over TLS.
func benchRequest(name, value string) *merlon.Request {
	hr, err := http.NewRequest(http.MethodGet, "https://"+benchSite+"/api/orders?page=2", nil)
	if err != nil {
		panic(err) // it is written right above
	}
	hr.RemoteAddr, hr.TLS = "192.0.2.7:50124", &tls.ConnectionState{}
	hr.Header = http.Header{
		"Accept": {"application/json"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"empty"},
		"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}, "Accept-Language": {"en-GB,en;q=0.9"},
	}
	if name != "" {
		hr.Header.Set(name, value)
	}
	r := merlon.NewRequest(hr)
	r.Site = benchSite
	return r
}

// answered is a request that is over, as are nearly all that a session has
// seen, which it need not remember.
func answered(r *merlon.Request) *merlon.Request {
	ctx, over := context.WithCancel(context.Background())
	over()
	r.Request = r.WithContext(ctx)
	return r
}

// proves returns a check that somebody is proved.
func proves(p merlon.Prover, r *merlon.Request) func() error {
	return func() error {
		_, err := p.Prove(r)
		return err
	}
}

// again returns a round that checks one request over and over, once it was
// checked for the first time.
func again(p merlon.Prover, r *merlon.Request) func() (func() error, int, error) {
	return func() (func() error, int, error) {
		check := proves(p, r)
		return check, 0, check()
	}
}

// proofs are all that are measured.
func (p *people) proofs() ([]proof, error) {
	all, err := p.sessionProofs("in process", session.NewMemory(0))
	if err != nil {
		return nil, err
	}
	list := all
	if all, err = p.sessionProofs("in SQLite", p.db.Sessions()); err != nil {
		return nil, err
	}
	list = append(list, all...)
	if s, err := p.redis(); err != nil {
		p.missing = append(p.missing, "sessions in Redis: "+err.Error())
	} else if all, err = p.sessionProofs("in Redis", s); err != nil {
		return nil, err
	} else {
		list = append(list, all...)
	}
	for _, more := range []func() ([]proof, error){p.tokenProofs, p.keyProof, p.basicProof, p.guardProof} {
		if all, err = more(); err != nil {
			return nil, err
		}
		list = append(list, all...)
	}
	return list, nil
}

// begin begins sessions in a store and returns requests with their cookies.
func (p *people) begin(s session.Store) ([]*merlon.Request, *session.Manager, error) {
	m, err := session.New(session.Config{}, s, p.db.Accounts())
	if err != nil {
		return nil, nil, err
	}
	p.managers = append(p.managers, m)
	var all []*merlon.Request
	for i := range crowd * benchSessions {
		_, c, err := m.Begin(benchRequest("", ""), session.Proof{Account: benchAccount(i % crowd).ID, Methods: []string{account.ByPassword, account.TOTP}})
		if err != nil {
			return nil, nil, err
		}
		all = append(all, answered(benchRequest("Cookie", "theme=dark; "+c.Name+"="+c.Value)))
	}
	return all, m, nil
}

// sessionProofs are a session that is in use, and one that this process sees
// for the first time, so that it and its account are read from their stores.
func (p *people) sessionProofs(where string, s session.Store) ([]proof, error) {
	requests, m, err := p.begin(s)
	if err != nil {
		return nil, err
	}
	first := func() (func() error, int, error) {
		m, err := session.New(session.Config{}, s, p.db.Accounts())
		if err != nil {
			return nil, 0, err
		}
		p.managers = append(p.managers, m)
		n := 0
		return func() error {
			n++
			_, err := m.Prove(requests[n-1])
			return err
		}, len(requests), nil
	}
	aim := 0.0
	if where == "in process" {
		aim = 2
	}
	return []proof{
		{"session " + where + ", in use", aim, again(m, requests[0])},
		{"session " + where + ", seen for the first time", 0, first},
	}, nil
}

// redis starts a server of our own that listens on a socket only.
func (p *people) redis() (*live.Sessions, error) {
	server, socket, err := startRedis(p.dir)
	if err != nil {
		return nil, err
	}
	c, err := redis.Dial(secrets.New("unix://" + socket))
	if err != nil {
		server.end()
		return nil, err
	}
	p.stop = append(p.stop, c.Close, server.end)
	return live.NewSessions(live.Connected(c)), nil
}

// tokenProofs are one token over and over, and many that are verified for the
// first time.
func (p *people) tokenProofs() ([]proof, error) {
	var list []proof
	for _, algorithm := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		c, keys := token.Config{Issuer: "https://" + benchSite, Algorithm: algorithm, Lifetime: 15 * time.Minute}, token.NewMemory()
		issuer, err := token.New(context.Background(), c, p.key, keys)
		if err != nil {
			return nil, err
		}
		var requests []*merlon.Request
		for i := range tokensMade {
			a := benchAccount(i % crowd)
			text, _, err := issuer.Issue(context.Background(), token.Claims{
				Subject: a.ID, Name: a.Name, Groups: a.Groups, Roles: a.Roles, Client: "app", Scopes: []string{"orders:read"},
				Methods: []string{account.ByPassword, account.TOTP}, AuthTime: time.Now(), Session: "S",
			})
			if err != nil {
				return nil, err
			}
			requests = append(requests, benchRequest("Authorization", "Bearer "+text))
		}
		if len(list) == 0 {
			list = append(list, proof{"token, seen before", 1, func() (func() error, int, error) {
				// One that nobody runs hears of no revocations, and so
				// believes nothing for longer than a minute.
				s, err := token.New(context.Background(), c, p.key, keys)
				if err != nil {
					return nil, 0, err
				}
				return again(s, requests[0])()
			}})
		}
		list = append(list, proof{"token, first time, " + algorithm, 0, func() (func() error, int, error) {
			s, err := token.New(context.Background(), c, p.key, keys)
			n := 0
			return func() error {
				n++
				_, err := s.Prove(requests[n-1])
				return err
			}, len(requests), err
		}})
	}
	return list, nil
}

func (p *people) keyRequest() (*apikey.Keys, *merlon.Request, error) {
	keys := apikey.New(p.db.Keys(), p.db.Accounts())
	text, _, err := keys.Issue(context.Background(), apikey.Key{Account: benchAccount(0).ID, Name: "bench", Scopes: []string{"orders:read"}})
	if err != nil {
		return nil, nil, err
	}
	return keys, benchRequest("Authorization", "Bearer "+text.Reveal()), nil
}

func (p *people) keyProof() ([]proof, error) {
	keys, r, err := p.keyRequest()
	return []proof{{"API key, in use", 0, again(keys, r)}}, err
}

// basicProof is a password that was verified within the last minute.
func (p *people) basicProof() ([]proof, error) {
	hasher, err := password.New(password.Config{Argon2: password.Argon2{Memory: 12 << 20, Time: 3}})
	if err != nil {
		return nil, err
	}
	hash, err := hasher.Hash(context.Background(), benchPassword(benchUser))
	if err != nil {
		return nil, err
	}
	_, err = p.db.Accounts().Update(context.Background(), benchAccount(0).ID, func(a *account.Account) error {
		a.Password = hash
		return nil
	})
	if err != nil {
		return nil, err
	}
	throttle, err := attempts.New(attempts.Config{}, p.key, nil, nil)
	if err != nil {
		return nil, err
	}
	basic, err := identity.NewBasic(identity.Config{Basic: &identity.Basic{}}, identity.Env{
		Key: p.key, Accounts: p.db.Accounts(), Hasher: hasher, Throttle: throttle,
	}, nil)
	if err != nil {
		return nil, err
	}
	r := benchRequest("", "")
	r.SetBasicAuth(benchUser, benchPassword(benchUser))
	return []proof{{"Basic, verified before", 0, again(basic, r)}}, nil
}

// guardProof is the whole guard, which asks keys and tokens before sessions,
// about a session in use.
func (p *people) guardProof() ([]proof, error) {
	requests, m, err := p.begin(session.NewMemory(0))
	if err != nil {
		return nil, err
	}
	keys, _, err := p.keyRequest()
	if err != nil {
		return nil, err
	}
	tokens, err := token.New(context.Background(), token.Config{Issuer: "https://" + benchSite, Algorithm: "EdDSA"}, p.key, token.NewMemory())
	if err != nil {
		return nil, err
	}
	g, err := identity.New(identity.Config{}, keys, tokens, m)
	if err != nil {
		return nil, err
	}
	r := requests[0]
	check := func() error {
		if d := g.Check(r); !d.Passed() || r.Identity == nil {
			return fmt.Errorf("the guard does not know whose session it is: %s", d.Reason)
		}
		return nil
	}
	return []proof{{"guard identity: key, token or session; session in use", 0, func() (func() error, int, error) { return check, 0, check() }}}, nil
}

func benchPassword(name string) string { return "correct horse battery staple of " + name }
