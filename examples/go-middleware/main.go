// Command go-middleware uses Merlon's packages in a program of its own, without
// the gateway: floods, forged requests, sessions, and who may go where.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/access"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/csrf"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/secrets"
)

// people are the accounts; a real program has them in its database.
type people map[string]account.Account

func (p people) Account(_ context.Context, id string) (account.Account, error) {
	a, ok := p[id]
	if !ok {
		return a, account.ErrNotFound
	}
	return a, nil
}

type app struct {
	people   people
	hasher   *password.Hasher
	throttle *attempts.Throttle
	sessions *session.Manager
}

// logIn counts the try before it looks at the password; for names that nobody
// has it takes as long as for others.
func (a *app) logIn(w http.ResponseWriter, hr *http.Request) {
	r, name, pass := merlon.From(hr), hr.PostFormValue("name"), hr.PostFormValue("password")
	ticket, wait := a.throttle.Begin(r.Context(), attempts.Try{Kind: attempts.Password, Account: name, Client: r.Client, Password: pass})
	if !wait.OK() {
		http.Error(w, "too many tries", http.StatusTooManyRequests)
		return
	}
	if ok, _, err := a.hasher.Verify(r.Context(), a.people[name].Password, pass); err != nil || !ok {
		ticket.Failed()
		http.Error(w, "wrong name or password", http.StatusForbidden)
		return
	}
	ticket.Succeeded()
	_, cookie, err := a.sessions.Begin(r, session.Proof{Account: name, Methods: []string{account.ByPassword}})
	if err != nil {
		http.Error(w, "try again", http.StatusServiceUnavailable)
		return
	}
	http.SetCookie(w, cookie)
	http.Redirect(w, hr, "/office", http.StatusSeeOther)
}

func office(w http.ResponseWriter, hr *http.Request) {
	fmt.Fprintf(w, "the office is open, %s\n", merlon.From(hr).Identity.Name)
}

const form = `<!doctype html><title>Log in</title><form method="post" action="/login">
<input name="name" autocomplete="username"><input name="password" type="password"><button>Log in</button></form>`

func run() error {
	hasher, err := password.New(password.Config{})
	key, kerr := secrets.NewKey(secrets.New(rand.Text() + rand.Text())) // a real program keeps it
	pass := cmp.Or(os.Getenv("PASSWORD"), rand.Text())
	if err := errors.Join(err, kerr); err != nil {
		return err
	}
	hash, err := hasher.Hash(context.Background(), pass)
	a := &app{hasher: hasher, people: people{"ann": {ID: "ann", Name: "ann", Roles: []string{"keeper"}, Password: hash}}}
	throttle, terr := attempts.New(attempts.Config{}, key, nil, nil)
	sessions, serr := session.New(session.Config{}, session.NewMemory(0), a.people)
	a.throttle, a.sessions = throttle, sessions
	who, ierr := identity.New(identity.Config{}, sessions)
	floods, lerr := limit.New(limit.Config{}, count.NewMemory(count.MemoryConfig{}), nil)
	forged, cerr := csrf.New(csrf.Config{})
	may, aerr := access.New(access.Config{Role: access.List{"keeper"}})
	if err := errors.Join(err, terr, serr, ierr, lerr, cerr, aerr); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, form) })
	mux.HandleFunc("POST /login", a.logIn)
	mux.Handle("GET /office", may.Middleware(http.HandlerFunc(office)))
	addr := cmp.Or(os.Getenv("ADDR"), "127.0.0.1:3000")
	fmt.Printf("http://%s: log in as ann with %s\n", addr, pass)
	// In this order, as in the gateway; access last, where it is asked for.
	return http.ListenAndServe(addr, merlon.Middleware(floods, who, forged)(mux))
}

func main() { log.Fatal(run()) }
