package mfa_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/secrets"
)

func key(t testing.TB) secrets.Key {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var codeForm = regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}$`)

func TestRecoveryCodes(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	codes, err := w.NewRecoveryCodes(t.Context(), w.ann.ID)
	if err != nil || len(codes) != 10 {
		t.Fatalf("%v, %v", codes, err)
	}
	use := func(a account.Account, code string) error { return w.UseRecoveryCode(t.Context(), a.ID, code) }
	left := func(want int) {
		t.Helper()
		if h, err := w.Held(t.Context(), shop, w.ann.ID); err != nil || h.Recovery != want {
			t.Errorf("%+v, %v; want %d left", h, err, want)
		}
	}
	seen := map[string]bool{}
	for _, c := range codes {
		if !codeForm.MatchString(c) || seen[c] {
			t.Errorf("%q", c)
		}
		seen[c] = true
	}
	t.Run("no code can be read at rest", func(t *testing.T) {
		all, err := w.store.Factors(t.Context(), w.ann.ID)
		if err != nil || len(all) != 10 {
			t.Fatalf("%d, %v", len(all), err)
		}
		for _, fa := range all {
			for _, c := range codes {
				if strings.Contains(fa.ID+fa.Name+string(fa.Data), strings.ReplaceAll(c, "-", "")) {
					t.Errorf("%+v", fa)
				}
			}
		}
	})
	t.Run("a code is good as people type it", func(t *testing.T) {
		for i, typed := range []string{
			codes[0],
			strings.ToLower(codes[1]),
			strings.ReplaceAll(codes[2], "-", ""),
			" " + strings.ReplaceAll(codes[3], "-", " – ") + "\r\n",
			strings.NewReplacer("0", "o", "1", "l").Replace(strings.ToLower(codes[4])),
			strings.NewReplacer("0", "O", "1", "I").Replace(codes[5]),
		} {
			if err := use(w.ann, typed); err != nil {
				t.Errorf("%d: %q: %v", i, typed, err)
			}
		}
		left(4)
	})
	t.Run("trap 47: a code is good once", func(t *testing.T) {
		wants(t, use(w.ann, codes[0]), mfa.ErrWrong)
	})
	t.Run("trap 47: of many that come with one code, one is let in", func(t *testing.T) {
		if n := race(t, func() error { return use(w.ann, codes[6]) }, mfa.ErrWrong); n != 1 {
			t.Errorf("%d were let in", n)
		}
		left(3)
	})
	t.Run("trap 47: a code of one account is nothing to another", func(t *testing.T) {
		wants(t, use(w.bob, codes[7]), mfa.ErrWrong)
	})
	t.Run("trap 47: a row that is moved to another account is worth nothing", func(t *testing.T) {
		all, err := w.store.Factors(t.Context(), w.ann.ID)
		if err != nil || len(all) != 3 {
			t.Fatalf("%d, %v", len(all), err)
		}
		for _, fa := range all {
			fa.Account = w.bob.ID
			if err := w.store.RemoveFactor(t.Context(), w.ann.ID, fa.ID); err != nil {
				t.Fatal(err)
			}
			if err := w.store.AddFactor(t.Context(), fa); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range codes[7:] {
			wants(t, use(w.bob, c), mfa.ErrWrong)
		}
	})
	t.Run("what is no code", func(t *testing.T) {
		for _, bad := range []string{"", "-", codes[7][1:], codes[7] + "0", "U" + codes[7][1:], "é" + codes[7][1:], strings.Repeat(" ", 1<<20) + codes[7], "r." + codes[7]} {
			wants(t, use(w.ann, bad), mfa.ErrWrong)
		}
	})
	t.Run("new codes replace the old", func(t *testing.T) {
		old, err := w.NewRecoveryCodes(t.Context(), w.ann.ID)
		if err != nil {
			t.Fatal(err)
		}
		secret := w.enrolled(t, w.ann)
		fresh, err := w.NewRecoveryCodes(t.Context(), w.ann.ID)
		if err != nil {
			t.Fatal(err)
		}
		left(10)
		wants(t, use(w.ann, old[0]), mfa.ErrWrong)
		if err := use(w.ann, fresh[0]); err != nil {
			t.Error(err)
		}
		if _, err := w.CheckTOTP(t.Context(), w.ann.ID, code(t, secret, w.now())); err != nil {
			t.Errorf("the app went with them: %v", err)
		}
	})
	t.Run("hashes are keyed", func(t *testing.T) {
		fresh, err := w.NewRecoveryCodes(t.Context(), w.ann.ID)
		if err != nil {
			t.Fatal(err)
		}
		other := open(t, mfa.Config{}, w.store, strings.Repeat("x", 32))
		wants(t, other.UseRecoveryCode(t.Context(), w.ann.ID, fresh[0]), mfa.ErrWrong)
	})
}

// Whatever is taken for a code is 16 letters of the alphabet, and reading it
// again, grouped or in lower case, changes nothing.
func FuzzCleanRecovery(f *testing.F) {
	for _, s := range []string{"7K2M-9XQ4-0TZB-HC5E", "7k2m9xq4otzbhc5e", "IL1O0-", "ｋ", "U"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := mfa.CleanRecovery(s)
		if !ok {
			return
		}
		if len(got) != 16 || !codeForm.MatchString(got[:4]+"-"+got[4:8]+"-"+got[8:12]+"-"+got[12:]) {
			t.Errorf("%q: %q", s, got)
		}
		if again, ok := mfa.CleanRecovery(strings.ToLower(got[:7]) + " -" + got[7:]); !ok || again != got {
			t.Errorf("%q: %q, and that is %q", s, got, again)
		}
	})
}
