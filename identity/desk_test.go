package identity_test

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/oidc"
)

func TestLogIn(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	for _, name := range []string{"ann", "ANN", " ann ", "ａｎｎ", "ann@example.com", "Ann@Example.COM"} {
		b := w.browser("192.0.2.1")
		s := b.want(b.password(name, annsPassword), identity.SignedIn)
		if s.Account != "ANN-ID" || s.Name != "ann" {
			t.Errorf("%q: %+v", name, s)
		}
		id := b.who()
		if id == nil || id.Subject != "ANN-ID" || !slices.Equal(id.Methods, []string{"password"}) || id.When.IsZero() {
			t.Errorf("%q: the guard sees %+v", name, id)
		}
		if _, ok := b.jar["__Host-merlon-try"]; ok {
			t.Error("what told the browser while the log-in was pending is still there")
		}
	}
	w.desk.Close()
	if h, err := w.store.History(ctx, "ANN-ID", 10); err != nil || len(h) != 6 || h[0].Result != "ok" || h[0].Method != "password" {
		t.Errorf("history %+v, %v", h, err)
	}
	if !w.event(identity.LoginSuccess, "") {
		t.Error("no event")
	}
}

// trap 41, F15: whatever is wrong looks the same, and is told apart in the log.
func TestWrongLooksTheSame(t *testing.T) {
	w := newWorld(t, identity.Config{Login: []identity.Rule{
		{Users: []string{"ann", "gone", "empty"}},
		{Users: []string{"bob"}, From: []string{"10.8.0.0/16"}},
	}})
	w.ann()
	w.add(account.Account{Name: "bob"})
	w.add(account.Account{Name: "gone", Disabled: true})
	w.add(account.Account{Name: "empty", Password: "none"})
	w.add(account.Account{Name: "unlisted"})
	w.add(account.Account{Name: "broken", ID: "BROKEN-ID", Password: "$2y$99$x"})
	for i, row := range []struct {
		what, name, pass string
		why              merlon.Reason
	}{
		{"a wrong password", "ann", "wrong", identity.WrongPassword},
		{"an unknown name", "nobody", annsPassword, identity.NoAccount},
		{"the right one of a disabled account", "gone", annsPassword, identity.AccountDisabled},
		{"the right one from elsewhere", "bob", annsPassword, identity.NotAllowedHere},
		{"the right one of somebody in no rule", "unlisted", annsPassword, identity.NotAllowedHere},
		{"an account without a password", "empty", "", identity.WrongPassword},
		{"a damaged hash", "broken", annsPassword, identity.WrongPassword},
		{"no name", "", annsPassword, identity.NoAccount},
		{"a name that cannot be one", "a b\x00", annsPassword, identity.NoAccount},
		{"a long name", strings.Repeat("n", 100_000), annsPassword, identity.NoAccount},
		{"trap 43: a password of 1 MB", "ann", strings.Repeat("p", 1<<20), identity.WrongPassword},
		{"trap 43: and for nobody", "nobody", strings.Repeat("p", 1<<20), identity.NoAccount},
	} {
		b := w.browser(fmt.Sprintf("198.51.%d.1", i))
		v := b.visit()
		s, err := w.desk.Password(v, row.name, row.pass)
		if err != nil || !reflect.DeepEqual(s, identity.Step{State: identity.Wrong}) || len(v.Header) != 0 {
			t.Errorf("%s: %+v, %v, header %v", row.what, s, err, v.Header)
		}
		if !w.event(identity.LoginFail, row.why) {
			t.Errorf("%s: the log does not say %s", row.what, row.why)
		}
	}
	b := w.browser("10.8.3.4")
	b.want(b.password("bob", annsPassword), identity.SignedIn)
}

// trap 41: having to wait, too, does not tell who exists.
func TestWaitingLooksTheSame(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	states := func(name, client string) (list []identity.State) {
		b := w.browser(client)
		for range 9 {
			list = append(list, b.password(name, "wrong").State)
		}
		return list
	}
	known, unknown := states("ann", "198.51.100.1"), states("nobody", "203.0.113.1")
	if !slices.Equal(known, unknown) || known[8] != identity.Wait {
		t.Errorf("known %v, unknown %v", known, unknown)
	}
}

// F17: the owner on a known device gets in while others attack the account.
func TestOwnerGetsIn(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	owner := w.browser("192.0.2.1").signIn("ann")
	delete(owner.jar, "__Host-merlon")
	for i := range 30 {
		b := w.browser(fmt.Sprintf("100.64.%d.1", i))
		b.password("ann", fmt.Sprint("guess", i))
	}
	other := w.browser("192.0.2.77")
	other.want(other.password("ann", annsPassword), identity.Wait)
	owner.client = "203.0.113.200" // she travels
	owner.signIn("ann")
}

// trap 47: the device cookie of another user is worth nothing, and none skips
// the second factor.
func TestDeviceCookieOfAnother(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	w.add(account.Account{Name: "mallory"})
	mallory := w.browser("192.0.2.66").signIn("mallory")
	for i := range 30 {
		b := w.browser(fmt.Sprintf("100.64.%d.1", i))
		b.password("ann", fmt.Sprint("guess", i))
	}
	mallory.want(mallory.password("ann", "guess"), identity.Wait)

	// A planted cookie does not become ann's.
	ann := w.browser("192.0.2.1")
	if err := w.env.Throttle.Forgive(ctx, "ann"); err != nil {
		t.Fatal(err)
	}
	planted := mallory.jar["__Host-merlon-device"]
	ann.jar["__Host-merlon-device"] = planted
	ann.signIn("ann")
	if first, _, _ := strings.Cut(ann.jar["__Host-merlon-device"], "."); first == planted {
		t.Error("a planted secret was taken over")
	}
	for i := range 30 {
		b := w.browser(fmt.Sprintf("100.65.%d.1", i))
		b.password("ann", fmt.Sprint("guess", i))
	}
	mallory.want(mallory.password("ann", "guess"), identity.Wait)
}

func TestSecondFactor(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	phone, s := b.enrol("")
	b.want(s, identity.Done)
	if len(s.Codes) != 10 {
		t.Errorf("%d recovery codes", len(s.Codes))
	}
	if id := b.who(); account.StrengthOf(id.Methods) != account.Multi {
		t.Errorf("the session that enrolled it has %v", id.Methods)
	}
	if _, ok := w.letter(identity.FactorAdded); !ok {
		t.Error("no letter about the new factor")
	}
	b = w.browser("192.0.2.2")
	s = b.want(b.password("ann", annsPassword), identity.Second)
	if !slices.Equal(s.Options, []string{identity.OptTOTP, identity.OptRecovery}) || b.who() != nil {
		t.Fatalf("%+v, %+v", s, b.who())
	}
	b.want(b.totp(s.Pending, "000000"), identity.Wrong)
	code := phone.code(t)
	b.want(b.totp(s.Pending, code), identity.SignedIn)
	if id := b.who(); !slices.Equal(id.Methods, []string{"password", "totp"}) {
		t.Errorf("%v", id.Methods)
	}
	// trap 46: the code again.
	b = w.browser("192.0.2.3")
	s = b.want(b.password("ann", annsPassword), identity.Second)
	b.want(b.totp(s.Pending, code), identity.Wrong)
	if !w.event(identity.LoginFail, identity.UsedCode) {
		t.Error("the log does not say that the code was used before")
	}
}

// trap 46: of two that come with one code at the same time, one is let in.
func TestOneCodeTwice(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	phone, _ := w.browser("192.0.2.1").signIn("ann").enrol("")
	code := phone.code(t)
	var in int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 4 {
		b := w.browser(fmt.Sprintf("192.0.2.%d", 10+i))
		s := b.want(b.password("ann", annsPassword), identity.Second)
		v := b.visit()
		wg.Go(func() {
			if got, err := w.desk.TOTP(v, s.Pending, code); err == nil && got.State == identity.SignedIn {
				mu.Lock()
				in++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if in != 1 {
		t.Errorf("%d were let in", in)
	}
}

// trap 47: the ways around the second factor.
func TestSecondFactorCannotBeSkipped(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	w.add(account.Account{Name: "mallory", ID: "MALLORY-ID"})
	phone, _ := w.browser("192.0.2.1").signIn("ann").enrol("")
	mallorys := w.browser("192.0.2.66").signIn("mallory")
	malloryApp, _ := mallorys.enrol("")

	stolen := w.browser("192.0.2.2") // has the password
	anns := stolen.want(stolen.password("ann", annsPassword), identity.Second)

	t.Run("the session does not begin before it", func(t *testing.T) {
		if stolen.who() != nil {
			t.Error("somebody is signed in")
		}
	})
	t.Run("user switched between the steps", func(t *testing.T) {
		other := w.browser("192.0.2.66")
		s := other.want(other.password("mallory", annsPassword), identity.Second)
		stolen.want(stolen.totp(s.Pending, malloryApp.code(t)), identity.Stale) // another browser's
		other.want(other.totp(anns.Pending, malloryApp.code(t)), identity.Stale)
		// In one browser: ann's password, mallory's pending and code.
		s = stolen.want(stolen.password("mallory", annsPassword), identity.Second)
		if got := stolen.totp(anns.Pending, malloryApp.code(t)); got.State != identity.Wrong {
			t.Errorf("mallory's code for ann: %+v", got)
		}
		_ = s
	})
	t.Run("changed pending", func(t *testing.T) {
		for i := 0; i < len(anns.Pending); i += 7 {
			changed := []byte(anns.Pending)
			changed[i] ^= 1
			stolen.want(stolen.totp(string(changed), phoneCode(t, phone)), identity.Stale)
		}
		stolen.want(stolen.totp("", "123456"), identity.Stale)
		stolen.want(stolen.totp(strings.Repeat("A", 1<<20), "123456"), identity.Stale)
	})
	t.Run("on another site", func(t *testing.T) {
		stolen.site = "wiki.example.com"
		stolen.want(stolen.totp(anns.Pending, phoneCode(t, phone)), identity.Stale)
		stolen.site = "shop.example.com"
	})
	t.Run("without the browser's cookie", func(t *testing.T) {
		other := w.browser("192.0.2.2")
		other.want(other.totp(anns.Pending, phoneCode(t, phone)), identity.Stale)
	})
	t.Run("enrolling another app with the password alone", func(t *testing.T) {
		v := stolen.visit()
		if _, s, err := w.desk.EnrolTOTP(v, anns.Pending); err != nil || s.State != identity.Stale {
			t.Errorf("%+v, %v", s, err)
		}
		if _, s, err := w.desk.EnrolTOTP(v, ""); err != nil || s.State != identity.Anonymous {
			t.Errorf("%+v, %v", s, err)
		}
	})
	t.Run("a new password first", func(t *testing.T) {
		stolen.want(stolen.do(func(v identity.Visit) (identity.Step, error) {
			return w.desk.SetPassword(v, anns.Pending, newPassword)
		}), identity.Stale)
	})
	t.Run("the password as a second factor", func(t *testing.T) {
		stolen.want(stolen.do(func(v identity.Visit) (identity.Step, error) {
			return w.desk.Prove(v, anns.Pending, annsPassword)
		}), identity.Stale)
	})
	t.Run("too late", func(t *testing.T) {
		w.later(11 * time.Minute)
		stolen.want(stolen.totp(anns.Pending, phoneCode(t, phone)), identity.Stale)
		w.later(-11 * time.Minute)
	})
	t.Run("after the password was changed", func(t *testing.T) {
		s := stolen.want(stolen.password("ann", annsPassword), identity.Second)
		if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error {
			a.PasswordSince = time.Now()
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		stolen.want(stolen.totp(s.Pending, phoneCode(t, phone)), identity.Stale)
	})
	t.Run("after the account was disabled", func(t *testing.T) {
		s := stolen.want(stolen.password("ann", annsPassword), identity.Second)
		if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error {
			a.Disabled = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		stolen.want(stolen.totp(s.Pending, phoneCode(t, phone)), identity.Stale)
	})
}

// phoneCode is a right code that is not used up by what refuses before.
func phoneCode(t testing.TB, a *app) string {
	step := a.step
	c := a.code(t)
	a.step = step
	return c
}

// trap 44: guesses at the second factor, with the right password.
func TestCodesAreCounted(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	w.browser("192.0.2.1").signIn("ann").enrol("")
	b := w.browser("198.51.100.1")
	s := b.want(b.password("ann", annsPassword), identity.Second)
	looked := 0
	for i := range 50 {
		if b.totp(s.Pending, fmt.Sprintf("%06d", i)).State == identity.Wrong {
			looked++
		}
	}
	if looked > 6 {
		t.Errorf("%d codes were looked at", looked)
	}
}

// trap 47: a recovery code is good once, also for two at the same time.
func TestRecoveryCode(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	_, enrolled := w.browser("192.0.2.1").signIn("ann").enrol("")
	code := enrolled.Codes[3]
	var in int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 4 {
		b := w.browser(fmt.Sprintf("192.0.2.%d", 10+i))
		s := b.want(b.password("ann", annsPassword), identity.Second)
		v := b.visit()
		wg.Go(func() {
			if got, err := w.desk.Recovery(v, s.Pending, code); err == nil && got.State == identity.SignedIn {
				mu.Lock()
				in++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if in != 1 {
		t.Errorf("%d were let in", in)
	}
	w.must(identity.CodeUsed)
	b := w.browser("192.0.2.50")
	s := b.want(b.password("ann", annsPassword), identity.Second)
	b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Recovery(v, s.Pending, code) }), identity.Wrong)
}

func TestMustEnrol(t *testing.T) {
	w := newWorld(t, identity.Config{MFA: identity.MFA{Required: []string{"team"}}})
	w.ann()
	w.add(account.Account{Name: "tom", ID: "TOM-ID", Roles: []string{"team"}})
	w.add(account.Account{Name: "tim", ID: "TIM-ID", Roles: []string{"team"}})
	w.browser("192.0.2.1").signIn("ann") // not asked of her

	b := w.browser("192.0.2.2")
	s := b.want(b.password("tom", annsPassword), identity.Enrol)
	if b.who() != nil {
		t.Error("signed in before enrolment")
	}
	if left := time.Until(s.EnrolBy); left < 71*time.Hour || left > 73*time.Hour {
		t.Errorf("until %v", s.EnrolBy)
	}
	w.later(71 * time.Hour)
	s2 := b.want(b.password("tom", annsPassword), identity.Enrol)
	if !s2.EnrolBy.Equal(s.EnrolBy) {
		t.Error("the grace begins anew with each log-in")
	}
	_, done := b.enrol(s2.Pending)
	w.later(-71 * time.Hour)
	b.want(done, identity.SignedIn)
	if len(done.Codes) != 10 || account.StrengthOf(b.who().Methods) != account.Multi {
		t.Errorf("%+v, %v", done, b.who())
	}
	// trap 47: the pending of before enrolment, once more.
	other := w.browser("192.0.2.2")
	other.want(other.password("tom", annsPassword), identity.Second)
	v := b.visit()
	if _, s, err := w.desk.EnrolTOTP(v, s2.Pending); err != nil || s.State == identity.Enrol {
		t.Errorf("enrolled twice by one log-in: %+v, %v", s, err)
	}

	b = w.browser("192.0.2.3")
	b.want(b.password("tim", annsPassword), identity.Enrol)
	w.later(73 * time.Hour)
	b.want(b.password("tim", annsPassword), identity.EnrolOver)
	w.desk.Close()
	if _, err := w.store.Update(ctx, "TIM-ID", func(a *account.Account) error { a.EnrolBy = time.Time{}; return nil }); err != nil {
		t.Fatal(err) // what an administrator's reset does
	}
	b.want(b.password("tim", annsPassword), identity.Enrol)
}

// trap 47: downgrade to a weaker factor, where policy asks for a better one.
func TestPhishingResistantIsAskedFor(t *testing.T) {
	w := newWorld(t, identity.Config{MFA: identity.MFA{Required: []string{"team"}, Level: account.PhishingResistant}})
	w.add(account.Account{Name: "tom", ID: "TOM-ID", Roles: []string{"team"}})
	b := w.browser("192.0.2.2")
	s := b.want(b.password("tom", annsPassword), identity.Enrol)
	_, s = b.enrol(s.Pending) // an app is not enough
	b.want(s, identity.Enrol)
	if b.who() != nil {
		t.Error("signed in with an app")
	}
}

// trap 47: a session from before the policy proves too little after it.
func TestSessionFromBeforeThePolicy(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.add(account.Account{Name: "tom", Roles: []string{"team"}})
	b := w.browser("192.0.2.2").signIn("tom")
	guard, err := identity.New(identity.Config{MFA: identity.MFA{Required: []string{"team"}}}, w.sessions)
	if err != nil {
		t.Fatal(err)
	}
	r := b.visit().Request
	r.Identity, r.Path = nil, "/admin"
	if d := guard.Check(r); d.Effect != merlon.Challenge || d.Reason != identity.SecondFactorMissing {
		t.Errorf("%+v", d)
	}
	r.Path = "/.merlon/account"
	if d := guard.Check(r); !d.Passed() || r.Identity == nil {
		t.Errorf("it cannot reach the page to enrol: %+v", d)
	}
}

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

func TestStepUp(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	before := b.jar["__Host-merlon"]
	up := func(need account.Strength) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.StepUp(v, need) })
	}
	prove := func(pending, pass string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Prove(v, pending, pass) })
	}
	s := b.want(up(account.None), identity.Second)
	if !slices.Equal(s.Options, []string{identity.OptPassword}) {
		t.Fatalf("%v", s.Options)
	}
	b.want(prove(s.Pending, "wrong"), identity.Wrong)
	b.want(prove(s.Pending, annsPassword), identity.SignedIn)
	if after := b.jar["__Host-merlon"]; after == before || b.who() == nil {
		t.Error("the session did not get a new cookie")
	}
	b.want(prove(s.Pending, annsPassword), identity.Stale) // once

	phone, _ := b.enrol("")
	s = b.want(up(account.None), identity.Second)
	s = b.want(prove(s.Pending, annsPassword), identity.Second)
	if !slices.Equal(s.Options, []string{identity.OptTOTP}) {
		t.Fatalf("%v", s.Options)
	}
	was := b.who().When
	b.want(b.totp(s.Pending, phone.code(t)), identity.SignedIn)
	if !b.who().When.After(was) {
		t.Error("it is no fresher than before")
	}
	// A step-up is for the session that began it.
	s = b.want(up(account.None), identity.Second)
	other := w.browser("192.0.2.1")
	maps := other.jar
	for k, v := range b.jar {
		if k != "__Host-merlon" {
			maps[k] = v
		}
	}
	other.want(other.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Prove(v, s.Pending, annsPassword) }), identity.Stale)
	nobody := w.browser("192.0.2.3")
	nobody.want(nobody.do(func(v identity.Visit) (identity.Step, error) { return w.desk.StepUp(v, account.Multi) }), identity.Anonymous)
}

// A step-up to more than the account has leads to enrolment, within the grace.
func TestStepUpEnrols(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	s := b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.StepUp(v, account.Multi) }), identity.Second)
	s = b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Prove(v, s.Pending, annsPassword) }), identity.Enrol)
	_, s = b.enrol(s.Pending)
	b.want(s, identity.SignedIn)
	if got := account.StrengthOf(b.who().Methods); got != account.Multi {
		t.Errorf("%v", b.who().Methods)
	}
}

// trap 47: disabling the second factor without a fresh proof of it.
func TestRemoveFactor(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	w.add(account.Account{Name: "mallory"})
	old := w.browser("198.51.100.1").signIn("ann") // one factor
	b := w.browser("192.0.2.1").signIn("ann")
	b.enrol("")
	if old.who() != nil {
		t.Error("a session that has not proved the new factor lives on")
	}
	factors, err := w.store.Factors(ctx, "ANN-ID")
	if err != nil {
		t.Fatal(err)
	}
	id := factors[slices.IndexFunc(factors, func(f account.Factor) bool { return f.Kind == account.TOTP })].ID
	remove := func(b *browser) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.RemoveFactor(v, id) })
	}
	mallory := w.browser("192.0.2.66").signIn("mallory")
	mallory.want(remove(mallory), identity.Stale)
	w.later(6 * time.Minute)
	b.want(remove(b), identity.Prove)
	w.later(-6 * time.Minute)
	b.want(remove(b), identity.Done)
	if left, err := w.store.Factors(ctx, "ANN-ID"); err != nil || len(left) != 0 {
		t.Errorf("%v, %v: recovery codes that stand for nothing", left, err)
	}
	w.must(identity.FactorRemoved)
}

func TestLastFactorStays(t *testing.T) {
	w := newWorld(t, identity.Config{MFA: identity.MFA{Required: []string{"all"}}})
	w.ann()
	b := w.browser("192.0.2.1")
	s := b.want(b.password("ann", annsPassword), identity.Enrol)
	_, s = b.enrol(s.Pending)
	b.want(s, identity.SignedIn)
	factors, err := w.store.Factors(ctx, "ANN-ID")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range factors {
		if f.Kind == account.TOTP {
			b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.RemoveFactor(v, f.ID) }), identity.LastFactor)
		}
	}
}

func TestRegister(t *testing.T) {
	w := newWorld(t, identity.Config{Register: "open", RegisterDomains: []string{"example.com"}, RegisterRoles: []string{"member"}})
	w.ann()
	ask := func(email string) identity.Step {
		b := w.browser("192.0.2.1")
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRegister(v, email) })
	}
	// trap 41: known and unknown addresses.
	for _, email := range []string{"ann@example.com", "Eve@example.com"} {
		if s := ask(email); !reflect.DeepEqual(s, identity.Step{State: identity.Sent}) {
			t.Errorf("%s: %+v", email, s)
		}
	}
	if l := w.must(identity.KnownLetter); l.To != "ann@example.com" || l.Secret != "" {
		t.Errorf("%+v", l)
	}
	l := w.must(identity.RegisterLetter)
	if email, ok, err := w.desk.LinkHolds(ctx, account.InviteLink, l.Secret); email != "eve@example.com" || !ok || err != nil {
		t.Errorf("%s, %v, %v", email, ok, err)
	}
	if s := ask("eve@elsewhere.example"); s.State != identity.Closed {
		t.Errorf("%+v", s)
	}
	if s := ask("nonsense"); s.State != identity.Wrong {
		t.Errorf("%+v", s)
	}
	b := w.browser("192.0.2.1")
	register := func(pass string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) {
			return w.desk.Register(v, l.Secret, "Eve\r\nBcc: x\u202e", pass)
		})
	}
	b.want(register("short"), identity.Weak)
	s := b.want(register(newPassword), identity.SignedIn)
	if a := w.account(s.Account); a.Name != "eve@example.com" || !a.EmailVerified || !slices.Equal(a.Roles, []string{"member"}) || a.Display != "Eve Bcc: x" {
		t.Errorf("%+v", a)
	}
	b.want(register(newPassword), identity.Stale)

	off := newWorld(t, identity.Config{})
	ob := off.browser("192.0.2.1")
	ob.want(ob.do(func(v identity.Visit) (identity.Step, error) { return off.desk.AskRegister(v, "x@example.com") }), identity.Closed)
	ob.want(ob.do(func(v identity.Visit) (identity.Step, error) { return off.desk.Register(v, l.Secret, "", newPassword) }), identity.Closed)
}

func TestInvite(t *testing.T) {
	w := newWorld(t, identity.Config{Register: "invite"})
	b := w.browser("192.0.2.1")
	b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRegister(v, "x@example.com") }), identity.Closed)
	secret, err := w.desk.Invite(b.visit(), "eve@example.com", []string{"ops"}, []string{"team"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s := b.want(b.do(func(v identity.Visit) (identity.Step, error) {
		return w.desk.Register(v, secret.Reveal(), "Eve", newPassword)
	}), identity.SignedIn)
	if a := w.account(s.Account); !slices.Equal(a.Groups, []string{"ops"}) || !slices.Equal(a.Roles, []string{"team"}) {
		t.Errorf("%+v", a)
	}
}

func TestFirstAdministrator(t *testing.T) {
	w := newWorld(t, identity.Config{})
	secret, until, needed, err := w.desk.FirstLink(ctx)
	if err != nil || !needed || time.Until(until) > time.Hour {
		t.Fatalf("%v, %v, %v", until, needed, err)
	}
	again, _, _, err := w.desk.FirstLink(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b := w.browser("192.0.2.1")
	first := func(secret, name string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.First(v, secret, name, newPassword) })
	}
	b.want(first(secret.Reveal(), "no name"), identity.Wrong)
	s := b.want(first(secret.Reveal(), "root@example.com"), identity.SignedIn)
	if a := w.account(s.Account); !slices.Equal(a.Roles, []string{identity.AdminRole}) || a.EmailVerified {
		t.Errorf("%+v", a)
	}
	b.want(first(secret.Reveal(), "second"), identity.Stale)
	b.want(first(again.Reveal(), "second"), identity.Taken)
	if _, _, needed, err := w.desk.FirstLink(ctx); err != nil || needed {
		t.Errorf("%v, %v", needed, err)
	}
}

// trap 57: linking by an address that is not verified, or by who does not
// decide about it.
func TestProvider(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	proof := oidc.Proof{
		Provider: "corp", Issuer: "https://id.example", Subject: "s1", Name: "ann", Email: "ann@example.com",
		Methods: []string{"oidc:corp"},
	}
	in := func(b *browser, p oidc.Proof) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Provider(v, "", p) })
	}
	b := w.browser("192.0.2.1")
	b.want(in(b, proof), identity.Unlinked)
	proof.EmailVerified = true
	b.want(in(b, proof), identity.Unlinked)
	proof.Create = true
	s := b.want(in(b, proof), identity.SignedIn)
	if s.Account == "ANN-ID" {
		t.Fatal("ann's account was taken over by a provider that does not decide about her address")
	}
	if a := w.account(s.Account); a.Email != "" || a.Name == "ann" {
		t.Errorf("%+v", a)
	}
	if id := b.who(); !slices.Equal(id.Methods, []string{"oidc:corp"}) {
		t.Errorf("%v", id.Methods)
	}

	b = w.browser("192.0.2.1")
	proof.Subject, proof.Authoritative = "s2", true
	proof.Groups = []string{"staff"}
	w.env.Mapped = map[string]identity.Mapping{"corp": {Groups: []string{"staff", "ops"}}}
	if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error { a.Groups = []string{"chess", "ops"}; return nil }); err != nil {
		t.Fatal(err)
	}
	w.remake()
	s = b.want(in(b, proof), identity.SignedIn)
	if s.Account != "ANN-ID" || !slices.Equal(w.account("ANN-ID").Groups, []string{"chess", "staff"}) {
		t.Errorf("%+v", s)
	}
	w.must(identity.ProviderLinked)

	// By a signed-in owner.
	owner := w.browser("192.0.2.1").signIn("ann")
	other := oidc.Proof{Provider: "git", Issuer: "https://git.example", Subject: "7", Methods: []string{"oidc:git"}}
	link := func(p oidc.Proof) identity.Step {
		return owner.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Link(v, p) })
	}
	owner.want(link(other), identity.Done)
	w.later(6 * time.Minute)
	owner.want(link(oidc.Proof{Provider: "git", Issuer: "https://git.example", Subject: "8"}), identity.Prove)
	w.later(-6 * time.Minute)
	proof.Subject = "s1"
	owner.want(link(proof), identity.Taken)
	b = w.browser("192.0.2.2")
	if s := b.want(in(b, other), identity.SignedIn); s.Account != "ANN-ID" {
		t.Errorf("%+v", s)
	}
	owner.want(owner.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Unlink(v, other.Issuer, other.Subject) }), identity.Done)
	if b.who() != nil {
		t.Error("the session by the unlinked account lives on")
	}

	// trap 47: the provider is no way around the second factor.
	phone, _ := owner.enrol("")
	b = w.browser("192.0.2.3")
	proof.Subject = "s2"
	s = b.want(in(b, proof), identity.Second)
	b.want(b.totp(s.Pending, phone.code(t)), identity.SignedIn)
	proof.Methods = []string{"oidc:corp", account.ByMFA} // it has asked for two itself
	b = w.browser("192.0.2.4")
	b.want(in(b, proof), identity.SignedIn)
}

// trap 45: the session moves to where its owner may not log in from.
func TestSessionMoves(t *testing.T) {
	w := newWorld(t, identity.Config{Login: []identity.Rule{{Users: []string{"ann"}, From: []string{"10.8.0.0/16"}}}})
	w.ann()
	b := w.browser("10.8.0.1").signIn("ann")
	for client, in := range map[string]bool{
		"10.8.0.1": true, "::ffff:10.8.7.7": true, "10.9.0.1": false, "2001:db8::1": false, "64:ff9b::10.8.0.1": false,
	} {
		b.client = client
		if got := b.who() != nil; got != in {
			t.Errorf("%s: signed in %v", client, got)
		}
		if !in && b.last.Reason != identity.NotAllowedHere {
			t.Errorf("%s: %s", client, b.last.Reason)
		}
	}
	b.client = "10.8.0.1"
	if b.who() == nil {
		t.Error("back where she may be, the session is gone")
	}
}

func TestLogOut(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	cookie := b.jar["__Host-merlon"]
	v := b.visit()
	if s, err := w.desk.LogOut(v); err != nil || s.State != identity.Done || v.Header.Get("Clear-Site-Data") == "" {
		t.Errorf("%+v, %v, %v", s, err, v.Header)
	}
	b.jar["__Host-merlon"] = cookie
	if b.who() != nil {
		t.Error("the cookie is still good")
	}
	if _, ok := b.jar["__Host-merlon"]; ok {
		t.Error("a cookie that proves nobody is not cleared")
	}
	var revoked []string
	w.env.Revoke = func(_ context.Context, account, session string) error {
		revoked = append(revoked, account+"/"+session)
		return nil
	}
	w.remake()
	one, two := w.browser("192.0.2.1").signIn("ann"), w.browser("192.0.2.2").signIn("ann")
	twos := two.who().Session
	one.want(one.do(func(v identity.Visit) (identity.Step, error) { return w.desk.EndSession(v, "") }), identity.Done)
	if one.who() == nil || two.who() != nil {
		t.Errorf("%v, %v", one.who(), two.who())
	}
	if !slices.Equal(revoked, []string{"ANN-ID/" + twos}) { // trap 49
		t.Errorf("tokens of %v were revoked", revoked)
	}
	one.want(one.do(func(v identity.Visit) (identity.Step, error) { return w.desk.EndSession(v, "nonsense") }), identity.Stale)
}

func TestNewDeviceIsTold(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	delete(b.jar, "__Host-merlon")
	b.signIn("ann")
	if _, ok := w.letter(identity.NewDevice); ok {
		t.Error("her own browser is told as new")
	}
	w.browser("203.0.113.1").signIn("ann")
	if l := w.must(identity.NewDevice); l.Client != netip.MustParseAddr("203.0.113.1") {
		t.Errorf("%+v", l)
	}
}

// The ticket of a ceremony needs a passkey; without one nothing is proved.
func TestPasskeyNonsense(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1")
	var c mfa.Ceremony
	b.want(b.do(func(v identity.Visit) (s identity.Step, err error) {
		c, s, err = w.desk.AskPasskey(v, "")
		return s, err
	}), identity.Second)
	for _, answer := range []string{"", "{}", `{"id":"x","rawId":"x","type":"public-key","response":{}}`} {
		s := b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Passkey(v, "", c.Ticket, []byte(answer)) })
		if s.State != identity.Wrong && s.State != identity.Stale {
			t.Errorf("%q: %+v", answer, s)
		}
	}
}

func TestBadConfig(t *testing.T) {
	c := identity.Config{
		MFA:      identity.MFA{Required: []string{}, Level: account.Single, Grace: time.Second},
		Register: "yes", Fresh: time.Second, RegisterDomains: []string{"@x"},
		Login: []identity.Rule{
			{From: []string{"10.8.1.1/16", "x.example", "::ffff:10.0.0.0/104", "10.0.0.1/33", ""}},
			{Users: []string{}}, {Countries: []string{"de"}}, {When: "always"}, {Groups: []string{""}},
		},
	}
	for _, make := range []func() error{
		func() error { _, err := identity.New(c); return err },
	} {
		err := make()
		if err == nil {
			t.Fatal("accepted")
		}
		for _, want := range []string{"mfa.required", "mfa.level", "mfa.grace", "register \"yes\"", "fresh \"1s\"", "register_domains[0]"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not tell %s", err, want)
			}
		}
	}
	_, err := identity.New(identity.Config{Login: c.Login})
	for _, want := range []string{
		"login[0].from[0] \"10.8.1.1/16\"", "login[0].from[1]", "login[0].from[2]", "login[0].from[3]", "login[0].from[4]",
		"login[1].users", "login[2].countries[0]", "login[3].when", "login[4].groups[0]", "countries: must name a database",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell %s", err, want)
		}
	}
}
