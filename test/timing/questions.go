package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
)

// questions are all that is asked.
func (w *world) questions() []*question {
	const unknown, known = "other", "known" // as long as all names, so that these take as long
	return []*question{
		{name: "log-in", share: 1, probe: w.probe, kinds: []kind{
			{"unknown", w.logIn(w.desk, unknown, "")}, {"known", w.logIn(w.desk, known, "")},
		}},
		// Who has the right password may know no more than whoever has not.
		{name: "log-in refused", share: 0.125, kinds: []kind{
			{"known", w.logIn(w.desk, known, "")}, {"disabled, right password", w.logIn(w.desk, "ended", right)},
			{"not allowed here, right password", w.logIn(w.desk, "place", right)}, {"without a password", w.logIn(w.desk, "empty", "")},
		}},
		{name: "log-in, imported bcrypt", share: 0.1, kinds: []kind{
			{"unknown", w.logIn(w.mixed, unknown, "")}, {"known", w.logIn(w.mixed, known, "")}, {"bcrypt", w.logIn(w.mixed, "older", "")},
		}},
		{name: "Basic", share: 0.1, kinds: []kind{{"unknown", w.prove(unknown)}, {"known", w.prove(known)}}},
		{name: "recover", share: 1, probe: w.probe, settle: rest, kinds: []kind{{"unknown", w.recover(unknown)}, {"known", w.recover(known)}}},
		{name: "register", share: 1, probe: w.probe, settle: rest, kinds: []kind{
			{"free", w.register(func(i int) string { return name("fresh", i%w.names) })},
			{"taken", w.register(func(i int) string { return name("place", i%w.names) })},
		}},
		{name: "passkey", share: 1, aside: "no page begins with a name", kinds: []kind{
			{"unknown", w.passkey(unknown)}, {"has one", w.passkey("phone")}, {"has none", w.passkey(known)},
		}},

		// Through a whole gateway, with the time of its pages and its log. It has
		// found the imported hashes when it started.
		{name: "page log-in", share: 0.05, settle: rest, kinds: []kind{
			{"unknown", w.pages.send("login", unknown, http.StatusForbidden)}, {"known", w.pages.send("login", known, http.StatusForbidden)},
		}},
		{name: "page recover", share: 0.5, settle: rest, kinds: []kind{
			{"unknown", w.pages.send("recover", unknown, http.StatusOK)}, {"known", w.pages.send("recover", known, http.StatusOK)},
		}},

		{name: "control: returns early", share: 0.02, leaks: true, kinds: []kind{
			{"unknown", w.early(w.logIn(w.desk, unknown, ""), unknown)}, {"known", w.early(w.logIn(w.desk, known, ""), known)},
		}},
		{name: "control: looks it up first", share: 0.2, settle: rest, leaks: true, kinds: []kind{
			{"unknown", w.early(w.recover(unknown), unknown)}, {"known", w.early(w.recover(known), known)},
		}},
	}
}

// rest lets what is done behind answers keep up with tries that take no time.
func rest() { time.Sleep(time.Millisecond) }

// logIn tries a password, each time another if it is not the right one.
func (w *world) logIn(desk *identity.Desk, of, pass string) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		try := pass
		if try == "" {
			try = fmt.Sprintf("a wrong password, number %d", w.calls)
		}
		s, err := desk.Password(w.visit(ctx), w.typed(of, i), try)
		return answered(s, err, identity.Wrong)
	}
}

func answered(s identity.Step, err error, want identity.State) error {
	if err == nil && s.State != want {
		err = fmt.Errorf("the answer is %q, not %q", s.State, want)
	}
	return err
}

// prove sends name and password with the request.
func (w *world) prove(of string) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		r := w.visit(ctx).Request
		r.SetBasicAuth(w.typed(of, i), fmt.Sprintf("a wrong password, number %d", w.calls))
		_, err := w.basic.Prove(r)
		var refused interface{ Reason() merlon.Reason }
		if !errors.As(err, &refused) || refused.Reason() != identity.NoAccount && refused.Reason() != identity.WrongPassword {
			return fmt.Errorf("the answer is %v", err)
		}
		return nil
	}
}

func (w *world) recover(of string) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		s, err := w.desk.AskRecover(w.visit(ctx), w.typed(of, i))
		return answered(s, err, identity.Sent)
	}
}

// register asks for an invitation.
func (w *world) register(address func(i int) string) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		s, err := w.desk.AskRegister(w.visit(ctx), address(i)+"@example.com")
		return answered(s, err, identity.Sent)
	}
}

// passkey is a ceremony that begins with a name, which Merlon's own pages never
// ask for: their passkeys are found without one.
func (w *world) passkey(of string) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		name := name(of, i%w.names)
		a, err := w.db.Accounts().ByName(ctx, name)
		if err != nil && !errors.Is(err, account.ErrNotFound) {
			return err
		}
		_, err = w.factors.BeginLogIn(ctx, origin, name, a.ID)
		return err
	}
}

// early is how it should not be: an account is looked for first, and if there
// is none, nothing else is done.
func (w *world) early(ask func(context.Context, int) error, of string) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		_, err := w.db.Accounts().ByName(ctx, name(of, i%w.names))
		switch {
		case errors.Is(err, account.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		return ask(ctx, i)
	}
}

// probe is a request that needs the store, sent right behind another.
func (w *world) probe(ctx context.Context) error {
	_, holds, err := w.desk.LinkHolds(ctx, account.RecoverLink, w.nobodys)
	if err == nil && holds {
		err = errors.New("a link that nobody has holds")
	}
	return err
}
