package mfa_test

import (
	"bytes"
	"errors"
	"image/png"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
)

func code(t testing.TB, secret string, at time.Time) string {
	t.Helper()
	c, err := totp.GenerateCode(secret, at)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// RFC 6238, appendix B, the last six digits.
func TestVectors(t *testing.T) {
	seed := []byte("12345678901234567890")
	for _, c := range []struct {
		unix int64
		code string
	}{
		{59, "287082"}, {1111111109, "081804"}, {1111111111, "050471"},
		{1234567890, "005924"}, {2000000000, "279037"}, {20000000000, "353130"},
	} {
		if got, err := mfa.Match(seed, c.code, c.unix/30); err != nil || got != c.unix/30 {
			t.Errorf("%s: step %d, %v; want %d", c.code, got, err, c.unix/30)
		}
	}
}

func TestEnrolTOTP(t *testing.T) {
	w := newWorld(t, mfa.Config{Issuer: "Example Shop"})
	e, err := w.EnrolTOTP(t.Context(), w.ann)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(e.URL)
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/Example Shop:ann" {
		t.Errorf("%s: %v", e.URL, err)
	}
	q := u.Query()
	if q.Get("issuer") != "Example Shop" || q.Get("algorithm") != "SHA1" || q.Get("digits") != "6" || q.Get("period") != "30" ||
		q.Get("secret") != strings.ReplaceAll(e.Secret, " ", "") || len(q.Get("secret")) != 32 {
		t.Errorf("%s", e.URL)
	}
	img, err := png.Decode(bytes.NewReader(e.QR))
	if err != nil || img.Bounds().Dx() != 496 {
		t.Fatalf("the picture: %v", err)
	}
	dark := 0
	for y := range 496 {
		for x := range 496 {
			if r, _, _, _ := img.At(x, y).RGBA(); r == 0 {
				dark++
				if x < 48 || y < 48 || x >= 448 || y >= 448 {
					t.Fatalf("dark at %d,%d, where a reader wants white", x, y)
				}
			}
		}
	}
	if dark < 496*496/8 {
		t.Errorf("only %d dark points", dark)
	}
	secret := q.Get("secret")

	t.Run("nothing is stored before it is confirmed", func(t *testing.T) {
		if all, err := w.store.Factors(t.Context(), w.ann.ID); err != nil || len(all) != 0 {
			t.Errorf("%v, %v", all, err)
		}
		_, err := w.CheckTOTP(t.Context(), w.ann.ID, code(t, secret, w.now()))
		wants(t, err, account.ErrNotFound)
	})
	t.Run("a wrong code does not confirm, and may be tried again", func(t *testing.T) {
		for _, bad := range []string{"", "12345", "1234567", "12345a", code(t, secret, w.now().Add(time.Hour))} {
			_, err := w.ConfirmTOTP(t.Context(), w.ann.ID, e.Ticket, bad, "")
			wants(t, err, mfa.ErrWrong)
		}
	})
	t.Run("a ticket is for one account", func(t *testing.T) {
		_, err := w.ConfirmTOTP(t.Context(), w.bob.ID, e.Ticket, code(t, secret, w.now()), "")
		wants(t, err, mfa.ErrStale)
	})
	t.Run("a ticket that was changed", func(t *testing.T) {
		for _, bad := range []string{"", e.Ticket[1:], e.Ticket + "A", "A" + e.Ticket[1:], strings.Repeat("A", 1<<20), e.Ticket + "=", e.Ticket + "\n"} {
			_, err := w.ConfirmTOTP(t.Context(), w.ann.ID, bad, code(t, secret, w.now()), "")
			wants(t, err, mfa.ErrStale)
		}
	})
	t.Run("a ticket is good for 10 minutes", func(t *testing.T) {
		defer w.at(0)
		w.at(10 * time.Minute)
		_, err := w.ConfirmTOTP(t.Context(), w.ann.ID, e.Ticket, code(t, secret, w.now()), "")
		wants(t, err, mfa.ErrStale)
	})
	t.Run("a ticket for a passkey is none for an app", func(t *testing.T) {
		c, err := w.BeginRegister(t.Context(), shop, w.ann, account.Passkey)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.ConfirmTOTP(t.Context(), w.ann.ID, c.Ticket, code(t, secret, w.now()), "")
		wants(t, err, mfa.ErrStale)
	})
	t.Run("the right code confirms", func(t *testing.T) {
		c := code(t, secret, w.now())
		fa, err := w.ConfirmTOTP(t.Context(), w.ann.ID, e.Ticket, c[:3]+" "+c[3:], " my\x00 phone\u202e ")
		if err != nil || fa.Name != "my phone" || fa.Kind != account.TOTP {
			t.Fatalf("%+v, %v", fa, err)
		}
		if h, err := w.Held(t.Context(), shop, w.ann.ID); err != nil || h != (mfa.Held{TOTP: 1}) {
			t.Errorf("%+v, %v", h, err)
		}
	})
	t.Run("trap 46: the code that confirmed is used up", func(t *testing.T) {
		_, err := w.CheckTOTP(t.Context(), w.ann.ID, code(t, secret, w.now()))
		wants(t, err, account.ErrUsed)
	})
	t.Run("trap 46: a ticket makes one factor", func(t *testing.T) {
		_, err := w.ConfirmTOTP(t.Context(), w.ann.ID, e.Ticket, code(t, secret, w.now().Add(30*time.Second)), "")
		wants(t, err, account.ErrTaken)
	})
	t.Run("trap 46: the seed cannot be read at rest, and the step is kept, not the code", func(t *testing.T) {
		all, err := w.store.Factors(t.Context(), w.ann.ID)
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		if bytes.Contains(all[0].Data, []byte(secret)) || len(all[0].Data) != 12+20+16 {
			t.Errorf("%q", all[0].Data)
		}
		if all[0].Counter != w.now().Unix()/30 {
			t.Errorf("the counter is %d", all[0].Counter)
		}
	})
}

func TestCheckTOTP(t *testing.T) {
	const sec = time.Second
	for _, c := range []struct {
		name string
		off  []time.Duration // when the codes were made, as the phone sees it
		at   []time.Duration // when they come
		want []error
	}{
		{"the present code", []time.Duration{0}, []time.Duration{0}, []error{nil}},
		{"the next code, too", []time.Duration{0, 30 * sec}, []time.Duration{0, 30 * sec}, []error{nil, nil}},
		{"a phone that is 25 s late", []time.Duration{65 * sec}, []time.Duration{90 * sec}, []error{nil}},
		{"a phone that is 25 s early", []time.Duration{115 * sec}, []time.Duration{90 * sec}, []error{nil}},
		{"a phone that is two steps late", []time.Duration{30 * sec}, []time.Duration{90 * sec}, []error{mfa.ErrWrong}},
		{"a phone that is two steps early", []time.Duration{150 * sec}, []time.Duration{90 * sec}, []error{mfa.ErrWrong}},
		{"trap 46: replay at once", []time.Duration{0, 0}, []time.Duration{0, 0}, []error{nil, account.ErrUsed}},
		{"trap 46: replay in the next step", []time.Duration{0, 0}, []time.Duration{0, 30 * sec}, []error{nil, account.ErrUsed}},
		{"trap 46: both sides of the drift, once each, forwards only",
			[]time.Duration{60 * sec, 90 * sec, 120 * sec, 90 * sec, 60 * sec, 120 * sec},
			[]time.Duration{90 * sec, 90 * sec, 90 * sec, 90 * sec, 90 * sec, 90 * sec},
			[]error{nil, nil, nil, account.ErrUsed, account.ErrUsed, account.ErrUsed}},
		{"trap 46: an older code after a newer one", []time.Duration{90 * sec, 60 * sec}, []time.Duration{90 * sec, 90 * sec}, []error{nil, account.ErrUsed}},
		{"trap 46: the clock goes back and comes again",
			[]time.Duration{600 * sec, 300 * sec, 600 * sec, 630 * sec},
			[]time.Duration{600 * sec, 300 * sec, 600 * sec, 630 * sec},
			[]error{nil, account.ErrUsed, account.ErrUsed, nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mfa.Config{})
			secret := w.enrolled(t, w.ann)
			start := w.now()
			for i := range c.off {
				w.at(c.at[i])
				_, err := w.CheckTOTP(t.Context(), w.ann.ID, code(t, secret, start.Add(c.off[i])))
				if !errors.Is(err, c.want[i]) {
					t.Errorf("try %d: %v, want %v", i+1, err, c.want[i])
				}
			}
		})
	}
}

func TestTOTPOnce(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	secret := w.enrolled(t, w.ann)
	c := code(t, secret, w.now())
	t.Run("trap 46: of many that come with one code, one is let in", func(t *testing.T) {
		// Two replicas, as it were.
		other := open(t, mfa.Config{}, w.store, strings.Repeat("k", 32))
		other.SetNow(w.now)
		n := race(t, func() error { _, err := w.CheckTOTP(t.Context(), w.ann.ID, c); return err }, account.ErrUsed)
		m := race(t, func() error { _, err := other.CheckTOTP(t.Context(), w.ann.ID, c); return err }, account.ErrUsed)
		if n != 1 || m != 0 {
			t.Errorf("%d and %d were let in", n, m)
		}
	})
	t.Run("trap 47: a code of one account is nothing to another", func(t *testing.T) {
		w.enrolled(t, w.bob)
		_, err := w.CheckTOTP(t.Context(), w.bob.ID, code(t, secret, w.now().Add(30*time.Second)))
		wants(t, err, mfa.ErrWrong)
	})
	t.Run("trap 47: a row that is moved to another account proves nobody", func(t *testing.T) {
		all, err := w.store.Factors(t.Context(), w.ann.ID)
		if err != nil || len(all) != 1 {
			t.Fatal(err)
		}
		moved := all[0]
		moved.Account = w.bob.ID
		if err := w.store.RemoveFactor(t.Context(), w.ann.ID, moved.ID); err != nil {
			t.Fatal(err)
		}
		if err := w.store.AddFactor(t.Context(), moved); err != nil {
			t.Fatal(err)
		}
		if _, err := w.CheckTOTP(t.Context(), w.bob.ID, code(t, secret, w.now().Add(30*time.Second))); err == nil || !strings.Contains(err.Error(), "was not sealed") {
			t.Errorf("got %v", err)
		}
	})
}

func TestSeveralApps(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	phone, tablet := w.enrolled(t, w.ann), w.enrolled(t, w.ann)
	for _, secret := range []string{phone, tablet} {
		if _, err := w.CheckTOTP(t.Context(), w.ann.ID, code(t, secret, w.now())); err != nil {
			t.Error(err)
		}
		_, err := w.CheckTOTP(t.Context(), w.ann.ID, code(t, secret, w.now()))
		wants(t, err, account.ErrUsed)
	}
	last, err := w.EnrolTOTP(t.Context(), w.ann)
	if err != nil {
		t.Fatal(err)
	}
	w.enrolled(t, w.ann)
	_, err = w.EnrolTOTP(t.Context(), w.ann)
	wants(t, err, mfa.ErrTooMany)
	_, err = w.ConfirmTOTP(t.Context(), w.ann.ID, last.Ticket, code(t, strings.ReplaceAll(last.Secret, " ", ""), w.now()), "")
	wants(t, err, mfa.ErrTooMany)
}

// The longest names make a picture that can still be read.
func TestLongNames(t *testing.T) {
	w := newWorld(t, mfa.Config{Issuer: strings.Repeat("ä", 64)})
	w.ann.Name = strings.Repeat("ß", 127)
	e, err := w.EnrolTOTP(t.Context(), w.ann)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.URL) > 1300 {
		t.Errorf("%d bytes: %s", len(e.URL), e.URL)
	}
	if _, err := png.Decode(bytes.NewReader(e.QR)); err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		c    mfa.Config
		want string
	}{
		{mfa.Config{}, ""},
		{mfa.Config{Issuer: "Bäckerei Jörg & Söhne", PasskeyDomain: "example.com"}, ""},
		{mfa.Config{Issuer: "a:b"}, "issuer"},
		{mfa.Config{Issuer: "a\x00b"}, "issuer"},
		{mfa.Config{Issuer: strings.Repeat("ä", 65)}, "issuer"},
		{mfa.Config{PasskeyDomain: "com"}, "passkey_domain"},
		{mfa.Config{PasskeyDomain: "Example.com"}, "passkey_domain"},
		{mfa.Config{PasskeyDomain: "example.com."}, "passkey_domain"},
		{mfa.Config{PasskeyDomain: "https://example.com"}, "passkey_domain"},
		{mfa.Config{PasskeyDomain: "example.com:8443"}, "passkey_domain"},
		{mfa.Config{PasskeyDomain: "192.0.2.1"}, "passkey_domain"},
	} {
		k := key(t)
		_, err := mfa.New(c.c, k, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.c, err)
		}
	}
}

// Whatever is taken for a code is six digits of what was typed, in order.
func FuzzCleanCode(f *testing.F) {
	for _, s := range []string{"123456", " 123 456 ", "123-456", "１２３４５６", "12345", "-- --", "123\u00a0456"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := mfa.CleanCode(s)
		if !ok {
			if got != "" {
				t.Errorf("%q: refused, but %q", s, got)
			}
			return
		}
		var typed strings.Builder
		for _, r := range s {
			if r >= '0' && r <= '9' {
				typed.WriteRune(r)
			}
		}
		if len(got) != 6 || got != typed.String() {
			t.Errorf("%q: %q", s, got)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	seed := []byte("12345678901234567890")
	for b.Loop() {
		if got, err := mfa.Match(seed, "000000", 1); err != nil || got >= 0 {
			b.Fatal(got, err)
		}
	}
}

func BenchmarkCheckTOTP(b *testing.B) {
	w := worldOf(b, mfa.Config{}, newMemory())
	secret := w.enrolled(b, w.ann)
	wrong := code(b, secret, w.now().Add(time.Hour))
	for b.Loop() {
		if _, err := w.CheckTOTP(b.Context(), w.ann.ID, wrong); !errors.Is(err, mfa.ErrWrong) {
			b.Fatal(err)
		}
	}
}
