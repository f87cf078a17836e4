package identity_test

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
)

func TestMustChange(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.add(account.Account{Name: "bob", ID: "BOB-ID", MustChange: true})
	b := w.browser("192.0.2.1")
	s := b.want(b.password("bob", annsPassword), identity.NewPassword)
	if s.Why != "must-change" || b.who() != nil {
		t.Errorf("%+v", s)
	}
	set := func(pass string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.SetPassword(v, s.Pending, pass) })
	}
	if _, st, err := w.desk.EnrolTOTP(b.visit(), s.Pending); err != nil || st.State != identity.Stale {
		t.Errorf("who must change the password could enrol a factor: %+v, %v", st, err)
	}
	b.want(set("short"), identity.Weak)
	b.want(set(annsPassword), identity.Weak)
	b.want(set(newPassword), identity.SignedIn)
	b.want(set(newPassword+"!"), identity.Stale) // once
	if a := w.account("BOB-ID"); a.MustChange {
		t.Error("it must still be changed")
	}
	b = w.browser("192.0.2.1")
	b.want(b.password("bob", annsPassword), identity.Wrong)
	b.want(b.password("bob", newPassword), identity.SignedIn)
}

// trap 47, trap 50: recovery by link.
func TestRecover(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	thief := w.browser("198.51.100.6").signIn("ann") // who has the password
	ask := func(name string) (string, identity.Step) {
		t.Helper()
		b := w.browser("192.0.2.1")
		s := b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRecover(v, name) })
		l, _ := w.letter(identity.RecoverLetter)
		return l.Secret, s
	}
	begin := func(b *browser, secret string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Recover(v, secret) })
	}
	first, s := ask("ann")
	if !reflect.DeepEqual(s, identity.Step{State: identity.Sent}) {
		t.Errorf("%+v", s)
	}
	l := w.must(identity.RecoverLetter)
	if l.To != "ann@example.com" || l.Origin != "https://shop.example.com" || time.Until(l.Until) > 15*time.Minute {
		t.Errorf("%+v", l)
	}
	// trap 41: the same for nobody, without a letter.
	n := len(w.letters)
	if _, s = ask("nobody"); !reflect.DeepEqual(s, identity.Step{State: identity.Sent}) || len(w.letters) != n {
		t.Errorf("%+v, %d letters", s, len(w.letters)-n)
	}
	// trap 50: parallel links: the last one holds.
	second, _ := ask("ann@example.com")
	b := w.browser("192.0.2.1")
	b.want(begin(b, first), identity.Stale)
	// trap 50: scanners follow links.
	for range 3 {
		if _, ok, err := w.desk.LinkHolds(ctx, account.RecoverLink, second); err != nil || !ok {
			t.Fatalf("looking uses it up: %v, %v", ok, err)
		}
	}
	s = b.want(begin(b, second), identity.NewPassword)
	s2 := b.want(begin(b, second), identity.NewPassword) // the page opened twice
	set := func(pending, pass string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.SetPassword(v, pending, pass) })
	}
	b.want(set(s.Pending, "short"), identity.Weak)
	b.want(set(s.Pending, newPassword), identity.SignedIn)
	b.want(set(s2.Pending, newPassword+"2"), identity.Stale)
	b.want(begin(b, second), identity.Stale)
	// trap 50: old sessions, and what the thief's browser was known by, end.
	if thief.who() != nil {
		t.Error("the thief is still signed in")
	}
	if devices, err := w.store.Devices(ctx, "ANN-ID"); err != nil || len(devices) != 1 {
		t.Errorf("%d devices, %v", len(devices), err)
	}
	w.must(identity.PasswordChanged)
	for _, secret := range []string{"", "x", strings.Repeat("A", 43), strings.Repeat("A", 1<<20)} {
		other := w.browser("192.0.2.9")
		other.want(begin(other, secret), identity.Stale)
	}
}

// trap 47: recovery by link does not log in without the second factor.
func TestRecoverAsksForTheSecondFactor(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	phone, _ := w.browser("192.0.2.1").signIn("ann").enrol("")
	b := w.browser("192.0.2.2")
	b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRecover(v, "ann") }), identity.Sent)
	secret := w.must(identity.RecoverLetter).Secret
	s := b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Recover(v, secret) }), identity.Second)
	set := func(pending string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.SetPassword(v, pending, newPassword) })
	}
	b.want(set(s.Pending), identity.Stale)
	s = b.want(b.totp(s.Pending, phone.code(t)), identity.NewPassword)
	b.want(set(s.Pending), identity.SignedIn)
	if got := account.StrengthOf(b.who().Methods); got != account.Multi {
		t.Errorf("%v", b.who().Methods)
	}
}

// trap 50: a link ends with the address that it was sent to, and with the
// password.
func TestRecoverLinkEnds(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	recoverLink := func() string {
		b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRecover(v, "ann") }), identity.Sent)
		return w.must(identity.RecoverLetter).Secret
	}
	holds := func(secret string) bool {
		_, ok, err := w.desk.LinkHolds(ctx, account.RecoverLink, secret)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	old := recoverLink()
	b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.ChangeEmail(v, "ann@new.example") }), identity.Sent)
	l := w.must(identity.VerifyEmailLetter)
	if l.To != "ann@new.example" || w.account("ANN-ID").Email != "ann@example.com" {
		t.Errorf("%+v", l)
	}
	confirm := func() identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.ConfirmEmail(v, l.Secret) })
	}
	b.want(confirm(), identity.Done)
	b.want(confirm(), identity.Stale)
	if a := w.account("ANN-ID"); a.Email != "ann@new.example" || !a.EmailVerified || holds(old) {
		t.Errorf("%+v, the old link holds: %v", a, holds(old))
	}
	if l := w.must(identity.EmailChanged); l.To != "ann@example.com" {
		t.Errorf("the notice went to %s", l.To)
	}
	link := recoverLink()
	b.want(b.do(func(v identity.Visit) (identity.Step, error) {
		return w.desk.ChangePassword(v, annsPassword, newPassword)
	}), identity.Done)
	if holds(link) {
		t.Error("a link outlives the password")
	}
	link = recoverLink()
	w.later(16 * time.Minute)
	if holds(link) {
		t.Error("a link is good for more than 15 minutes")
	}
}

// trap 50: who was in with the old password has asked for an address of their
// own, to come back by a link to recover.
func TestNewPasswordEndsLinksToNewAddresses(t *testing.T) {
	for name, end := range map[string]func(w *world, b *browser){
		"a new password, by its owner": func(w *world, b *browser) {
			b.want(b.do(func(v identity.Visit) (identity.Step, error) {
				return w.desk.ChangePassword(v, annsPassword, newPassword)
			}), identity.Done)
		},
		"a new password, by a link": func(w *world, b *browser) {
			b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRecover(v, "ann") }), identity.Sent)
			l := w.must(identity.RecoverLetter)
			s := b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Recover(v, l.Secret) }), identity.NewPassword)
			b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.SetPassword(v, s.Pending, newPassword) }), identity.SignedIn)
		},
		"an administrator": func(w *world, _ *browser) {
			if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error { a.ValidFrom = w.now(); return nil }); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, identity.Config{})
			w.ann()
			owner := w.browser("192.0.2.1").signIn("ann") // before the thief asks
			thief := w.browser("203.0.113.66").signIn("ann")
			ask := func(v identity.Visit) (identity.Step, error) { return w.desk.ChangeEmail(v, "thief@evil.example") }
			thief.want(thief.do(ask), identity.Sent)
			l := w.must(identity.VerifyEmailLetter)
			end(w, owner)
			thief.want(thief.do(func(v identity.Visit) (identity.Step, error) { return w.desk.ConfirmEmail(v, l.Secret) }), identity.Stale)
			if a := w.account("ANN-ID"); a.Email != "ann@example.com" {
				t.Errorf("the address is %s", a.Email)
			}
		})
	}
}

// trap 50: two accounts that want one address: the first to confirm has it.
func TestEmailRace(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	w.add(account.Account{Name: "bob", ID: "BOB-ID", Email: "bob@example.com", EmailVerified: true})
	var secrets []string
	for _, name := range []string{"ann", "bob"} {
		b := w.browser("192.0.2.1").signIn(name)
		b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.ChangeEmail(v, "both@example.com") }), identity.Sent)
		secrets = append(secrets, w.must(identity.VerifyEmailLetter).Secret)
	}
	b := w.browser("192.0.2.1")
	states := map[identity.State]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, secret := range secrets {
		v := b.visit()
		wg.Go(func() {
			s, err := w.desk.ConfirmEmail(v, secret)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			states[s.State]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if states[identity.Done] != 1 || states[identity.Taken] != 1 {
		t.Errorf("%v", states)
	}
}

// trap 50: mail bombing.
func TestMailBombing(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	sent := map[identity.State]int{}
	for i := range 40 {
		b := w.browser(fmt.Sprintf("100.64.%d.1", i))
		sent[b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRecover(v, "ann") }).State]++
	}
	w.desk.Close()
	if len(w.letters) > 4 || sent[identity.Wait] == 0 {
		t.Errorf("%d letters, %v", len(w.letters), sent)
	}
}

func TestChangePassword(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	other := w.browser("198.51.100.1").signIn("ann")
	b := w.browser("192.0.2.1").signIn("ann")
	change := func(current, pass string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.ChangePassword(v, current, pass) })
	}
	b.want(change("wrong", newPassword), identity.Wrong)
	b.want(change(annsPassword, "short"), identity.Weak)
	b.want(change(annsPassword, newPassword), identity.Done)
	if b.who() == nil || other.who() != nil {
		t.Errorf("own session %v, the other %v", b.who(), other.who())
	}
	w.must(identity.PasswordChanged)
	if !w.event(identity.PasswordChange, "") || !w.event(identity.PasswordChangeFail, identity.WrongPassword) {
		t.Error("the log does not tell it")
	}
	w.later(6 * time.Minute)
	b.want(change(newPassword, annsPassword), identity.Prove)
	w.browser("192.0.2.9").want(w.browser("192.0.2.9").do(func(v identity.Visit) (identity.Step, error) {
		return w.desk.ChangePassword(v, annsPassword, newPassword)
	}), identity.Anonymous)
}
