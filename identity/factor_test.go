package identity_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
)

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
	again := b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Again(v, s.Pending) }), identity.Second)
	if !slices.Equal(again.Options, s.Options) {
		t.Errorf("again %v", again.Options)
	}
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
	if !slices.Contains(s.Options, identity.OptTOTP) {
		t.Errorf("what would be enough is %q", s.Options)
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
	w.add(account.Account{Name: "tea", ID: "TEA-ID", Roles: []string{"team"}})
	thief, tea := w.browser("198.51.100.2"), w.browser("192.0.2.7")
	early := thief.want(thief.password("tea", annsPassword), identity.Enrol)
	s = tea.want(tea.password("tea", annsPassword), identity.Enrol)
	_, s = tea.enrol(s.Pending)
	tea.want(s, identity.SignedIn)
	// trap 47: a pending from before enrolment makes no second one.
	if _, s, err := w.desk.EnrolTOTP(thief.visit(), early.Pending); err != nil || s.State != identity.Stale {
		t.Errorf("enrolled by a log-in from before: %+v, %v", s, err)
	}
	thief.want(thief.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Again(v, early.Pending) }), identity.Second)

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
	if !slices.Equal(s.Options, []string{identity.OptPasskey, identity.OptSecurityKey}) {
		t.Errorf("what would be enough is %q", s.Options)
	}
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

func TestStepUp(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	w.add(account.Account{Name: "ann2"})
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
	third := w.browser("192.0.2.1").signIn("ann2")
	third.jar["__Host-merlon-try"] = b.jar["__Host-merlon-try"]
	third.want(third.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Prove(v, s.Pending, annsPassword) }), identity.Stale)
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
