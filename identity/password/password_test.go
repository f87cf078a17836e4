package password_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/secrets"
)

// cheap is the least that is allowed.
var cheap = password.Argon2{Memory: 12 * merlon.MiB, Time: 3}

const right = "correct horse"

func newHasher(t testing.TB, c password.Config) *password.Hasher {
	t.Helper()
	if c.Argon2 == (password.Argon2{}) {
		c.Argon2 = cheap
	}
	h, err := password.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func pepper(t testing.TB, text string) secrets.Ref {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pepper")
	if err := os.WriteFile(path, []byte(strings.Repeat(text, 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	return secrets.Ref("file:" + path)
}

func hashOf(t testing.TB, h *password.Hasher, text string) string {
	t.Helper()
	stored, err := h.Hash(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// verify tells a verification in words.
func verify(t testing.TB, h *password.Hasher, stored, text string) string {
	t.Helper()
	ok, upgrade, err := h.Verify(t.Context(), stored, text)
	switch {
	case err != nil && (ok || upgrade):
		t.Errorf("both an answer and an error: %v", err)
		return "both"
	case err != nil:
		return err.Error()
	case ok && upgrade:
		return "right, old"
	case ok:
		return "right"
	case upgrade:
		t.Error("a wrong password would be upgraded")
	}
	return "wrong"
}

// known are hashes of right that other programs have made: the reference
// implementation of argon2, libxcrypt's crypt(3) and Python's hashlib.
var known = map[string]string{
	"bcrypt 2a":            "$2a$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
	"bcrypt 2b":            "$2b$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
	"bcrypt 2y, htpasswd":  "$2y$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
	"bcrypt, Django":       "bcrypt$$2b$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
	"bcrypt_sha256":        "bcrypt_sha256$$2b$10$abcdefghijklmnopqrstuuaDDmPWNRqhNyL44KvWaEPmBlBEVL/9W",
	"scrypt, PHC":          "$scrypt$ln=14,r=8,p=1$c2FsdHNhbHRzYWx0MTIzNA$4arrjyS1vmidCi86mesWdXYp+ysep8sjVaAdL+3pkDc",
	"scrypt, crypt(3)":     "$7$C6..../....SodiumChloride$DDiXq9W.wa48NxjJa6vFZ3vzvwdnAYeTgzYDB94rqQ/",
	"scrypt, Django":       "scrypt$16384$NaClNaClNaCl$8$1$LXaJNo+7qI1Ti2DGuEpOfaT5Rkm3gH0SAp++WB9ST5W2hFruj2lqCEzRgU4f83DlikeqDmNHT/IfJ69UMbQrhQ==",
	"scrypt, Werkzeug":     "scrypt:32768:8:1$kmO7zRDGvp7FXZ2a$63c096eb9d9f933a17f7430312e511e006dc2165b727dc237fd4ea6690d36a0f2dc6efd14d4ee800258d6e859b06bc24ab9de2012cc322c88b877892376ea13d",
	"pbkdf2-256, passlib":  "$pbkdf2-sha256$29000$c2FsdHNhbHRzYWx0MTIzNA$BixC0u8r6dbve/Ixu7dkH2Cl/vHYFaTADNlpyO7BpdY",
	"pbkdf2-256, dots":     "$pbkdf2-sha256$1000$.....................w$inu/EBpg0qECleeKypc9kzVfX63hp95yXHO9eUdBakk",
	"pbkdf2-256, PHC":      "$pbkdf2-sha256$i=29000,l=32$c2FsdHNhbHRzYWx0MTIzNA$BixC0u8r6dbve/Ixu7dkH2Cl/vHYFaTADNlpyO7BpdY",
	"pbkdf2-256, Django":   "pbkdf2_sha256$29000$textsalt$9/6V8mI8gIUOW/sbq/n/c1lAJrAaVQxAb3DFW2LEQ48=",
	"pbkdf2-256, Werkzeug": "pbkdf2:sha256:29000$textsalt$f7fe95f2623c80850e5bfb1babf9ff73594026b01a550c406f70c55b62c4438f",
	"pbkdf2-512, passlib":  "$pbkdf2-sha512$29000$c2FsdHNhbHRzYWx0MTIzNA$7fP.ZlEgBAA4sep3L68TNALgwgmTnWKcc3FWMoCs24/Witp/ozNbdN9vB43ktjxUrIBVfS16pqhkfTVpbQODoA",
	"pbkdf2-512, PHC":      "$pbkdf2-sha512$i=29000,l=64$c2FsdHNhbHRzYWx0MTIzNA$7fP+ZlEgBAA4sep3L68TNALgwgmTnWKcc3FWMoCs24/Witp/ozNbdN9vB43ktjxUrIBVfS16pqhkfTVpbQODoA",
	"pbkdf2-512, Django":   "pbkdf2_sha512$29000$textsalt$FStxZD974Sy+AjDLbbV0oeI51FBLTVjZ/6NmE+fvqK+7HBa9BFwUAHdD/N4mPYTpXEghH+HrTr3uSNYIXgRfdQ==",
	"pbkdf2-512, Werkzeug": "pbkdf2:sha512:29000$textsalt$152b71643f7be12cbe0230cb6db574a1e239d4504b4d58d9ffa36613e7efa8afbb1c16bd045c14007743fcde263d84e95c48211fe1eb4ebdee48d6085e045f75",
}

func TestKnownHashes(t *testing.T) {
	h := password.Unpaced(newHasher(t, password.Config{}))
	for name, stored := range known {
		t.Run(name, func(t *testing.T) {
			if err := password.Valid(stored); err != nil {
				t.Fatal(err)
			}
			if got := verify(t, h, stored, right); got != "right, old" {
				t.Errorf("right password: %s", got)
			}
			for _, wrong := range []string{right + " ", right + "\x00"} {
				if got := verify(t, h, stored, wrong); got != "wrong" {
					t.Errorf("%q: %s", wrong, got)
				}
			}
		})
	}
	// The test vectors of the reference implementation.
	for stored, text := range map[string]string{
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc":     "password",
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4":       "password",
		"argon2$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc": "password",
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$C4TWUs9rDEvq7w3+J4umqA32aWKB1+DSiRuBfYxFj94":     "differentpassword",
		"$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D":                   "pleaseletmein",
		"$2b$05$abcdefghijklmnopqrstuuQNr.NUko7cjRuTOhPz.WP0eA4f4.Xuq":                               "päss",
		"$2b$05$abcdefghijklmnopqrstuuRWUgMyyCUnsDr8evYotXg5ZXVF/HhzS":                               "abc",
	} {
		if got := verify(t, h, stored, text); got != "right, old" {
			t.Errorf("%s: %s", stored[:12], got)
		}
	}
}

func TestOwnHashes(t *testing.T) {
	for name, c := range map[string]struct {
		config password.Config
		form   string
	}{
		"argon2id":          {password.Config{}, "$argon2id$v=19$m=12288,t=3,p=1$"},
		"argon2id, pepper":  {password.Config{Pepper: pepper(t, "p")}, "$argon2id$v=19$m=12288,t=3,p=1,keyid="},
		"bcrypt":            {password.Config{Hash: "bcrypt", BcryptCost: 10}, "$2a$10$"},
		"bcrypt and pepper": {password.Config{Hash: "bcrypt", BcryptCost: 10, Pepper: pepper(t, "p")}, "$merlon$keyid="},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHasher(t, c.config)
			stored := hashOf(t, h, right)
			if !strings.HasPrefix(stored, c.form) {
				t.Errorf("got %s", stored)
			}
			if again, err := password.Rewrite(stored); again != stored {
				t.Errorf("read and written: %s, %v", again, err)
			}
			if stored == hashOf(t, h, right) {
				t.Error("two hashes have one salt")
			}
			if got := verify(t, h, stored, right); got != "right" {
				t.Errorf("right: %s", got)
			}
			if got := verify(t, h, stored, right+"x"); got != "wrong" {
				t.Errorf("wrong: %s", got)
			}
			if got := verify(t, h, stored+"!", right); !strings.Contains(got, "cannot be verified") {
				t.Errorf("damaged: %s", got)
			}
		})
	}
}

// Decisions D3 and D4: NFC, and otherwise as it was typed.
func TestUnicode(t *testing.T) {
	h := newHasher(t, password.Config{})
	stored := hashOf(t, h, "  Stra\u00dfe Ma\u00f1ana 漢字  ")
	for text, want := range map[string]string{
		"  Stra\u00dfe Man\u0303ana 漢字  ": "right", // decomposed, as some keyboards write
		"Stra\u00dfe Ma\u00f1ana 漢字":      "wrong", // trimmed
		"  stra\u00dfe ma\u00f1ana 漢字  ":  "wrong", // folded
		"  Strasse Ma\u00f1ana 漢字  ":      "wrong",
		"  Stra\u00dfe Manana 漢字  ":       "wrong",
	} {
		if got := verify(t, h, stored, text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	long := strings.Repeat("漢", password.MaxBytes/3)
	stored = hashOf(t, h, long)
	if got := verify(t, h, stored, long[3:]); got != "wrong" {
		t.Errorf("a long password was cut: %s", got)
	}
	if got := verify(t, h, stored, long); got != "right" {
		t.Errorf("a long password: %s", got)
	}
}

func TestTrap43(t *testing.T) {
	h, b := password.Unpaced(newHasher(t, password.Config{})), newHasher(t, password.Config{Hash: "bcrypt", BcryptCost: 10})
	peppered := newHasher(t, password.Config{Hash: "bcrypt", BcryptCost: 10, Pepper: pepper(t, "p")})
	ctx := t.Context()
	t.Run("a password of 1 MB is refused before it is hashed", func(t *testing.T) {
		huge := strings.Repeat("a", 1<<20)
		if _, err := h.Hash(ctx, huge); !errors.Is(err, password.ErrTooLong) {
			t.Error(err)
		}
		if got := verify(t, h, hashOf(t, h, right), huge); got != "wrong" {
			t.Error(got)
		}
	})
	t.Run("trap 41: one too long takes as long as any other", func(t *testing.T) {
		// What stands in for it has one byte, which is nobody's password.
		if got := verify(t, h, hashOf(t, h, "x"), strings.Repeat("a", 1<<20)); got != "wrong" {
			t.Error(got)
		}
	})
	t.Run("bcrypt: 72 bytes", func(t *testing.T) {
		if _, err := b.Hash(ctx, strings.Repeat("a", 73)); !errors.Is(err, password.ErrTooLong) {
			t.Error(err)
		}
		stored := hashOf(t, b, strings.Repeat("a", 72))
		if got := verify(t, b, stored, strings.Repeat("a", 72)); got != "right" {
			t.Error(got)
		}
		if got := verify(t, b, stored, strings.Repeat("a", 73)); got != "wrong" {
			t.Errorf("what is cut fits: %s", got)
		}
		// crypt(3) had cut 80 bytes.
		if got := verify(t, b, "$2b$05$abcdefghijklmnopqrstuuGUnCqbfgs3htOkLrFduUjAyLBw1Rq/u", strings.Repeat("a", 80)); got != "wrong" {
			t.Errorf("what was cut fits: %s", got)
		}
	})
	t.Run("bcrypt: NUL", func(t *testing.T) {
		if _, err := b.Hash(ctx, "abc\x00abc"); !errors.Is(err, password.ErrNUL) {
			t.Error(err)
		}
		for _, text := range []string{"abc\x00", "abc\x00abc", "abc\x00d"} {
			if got := verify(t, h, "$2b$05$abcdefghijklmnopqrstuuRWUgMyyCUnsDr8evYotXg5ZXVF/HhzS", text); got != "wrong" {
				t.Errorf("%q is abc: %s", text, got)
			}
		}
	})
	t.Run("bcrypt with a pepper takes all", func(t *testing.T) {
		for _, text := range []string{strings.Repeat("a", 200), "abc\x00abc"} {
			stored := hashOf(t, peppered, text)
			if got := verify(t, peppered, stored, text); got != "right" {
				t.Errorf("%.10q: %s", text, got)
			}
			if got := verify(t, peppered, stored, text+"a"); got != "wrong" {
				t.Errorf("%.10q and more: %s", text, got)
			}
		}
	})
	t.Run("a password that the new kind cannot take is not upgraded", func(t *testing.T) {
		long := strings.Repeat("a", 100)
		if got := verify(t, b, hashOf(t, h, long), long); got != "right" {
			t.Error(got)
		}
	})
	t.Run("shucking: neither what is in a keyed hash nor a digest is a password", func(t *testing.T) {
		inner := strings.SplitN(hashOf(t, peppered, right), "$2a$", 2)[1]
		if got := verify(t, peppered, "$2a$"+inner, right); got != "wrong" {
			t.Errorf("the inner hash is one of the password: %s", got)
		}
		digest := "3cb4e732631f47e6eb961f34554b7cde"
		stored, err := h.Import(ctx, digest)
		if err != nil {
			t.Fatal(err)
		}
		if got := verify(t, h, stored, digest); got != "wrong" {
			t.Errorf("the digest is a password: %s", got)
		}
	})
	t.Run("a pepper that is missing stops the start", func(t *testing.T) {
		for ref, want := range map[secrets.Ref]string{
			"env:MERLON_TEST_NO_SUCH":   "pepper \"env:MERLON_TEST_NO_SUCH\": env:MERLON_TEST_NO_SUCH is empty or not set",
			"file:/nowhere/merlon":      "no such file",
			"MERLON_TEST_NO_REFERENCE!": "must be a reference",
		} {
			_, err := password.New(password.Config{Argon2: cheap, Pepper: ref})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", ref, err)
			}
		}
		t.Setenv("MERLON_TEST_SHORT", "hunter2hunter2")
		_, err := password.New(password.Config{Argon2: cheap, Pepper: "env:MERLON_TEST_SHORT"})
		if err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("a short pepper: %v", err)
		}
	})
}

// Trap 43: a cost that somebody else has chosen.
func TestCostOfStoredHashesIsBounded(t *testing.T) {
	h := newHasher(t, password.Config{})
	const sum, salt = "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "c29tZXNhbHQ"
	for _, stored := range []string{
		"$argon2id$v=19$m=4194304,t=1,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=4294967295,t=1,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=1000,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=4294967295,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=1,p=255$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=0,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=1,p=0$" + salt + "$" + sum,
		"$argon2id$v=19$m=8,t=1,p=2$" + salt + "$" + sum,
		"$argon2id$v=19$m=0,t=1,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=99999999999999999999,t=1,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=+65536,t=1,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=065536,t=1,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=1,p=1,x=1$" + salt + "$" + sum,
		"$argon2id$v=19$t=1,m=65536,p=1$" + salt + "$" + sum,
		"$argon2id$v=16$m=65536,t=1,p=1$" + salt + "$" + sum,
		"$argon2id$m=65536,t=1,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=1,p=1$$" + sum,
		"$argon2id$v=19$m=65536,t=1,p=1$" + salt + "$AAAA",
		"$argon2id$v=19$m=65536,t=1,p=1$" + salt + "$",
		"$argon2id$v=19$m=65536,t=1,p=1$" + salt + "$" + strings.Repeat("A", 400),
		"$argon2id$v=19$m=65536,t=1,p=1$" + salt + "\n$" + sum,
		"$argon2id$v=19$m=65536,t=1,p=1$" + salt + "=$" + sum,
		"$argon2id$v=19$m=65536,t=1,p=1$" + salt + "$" + sum + "$",
		"$argon2i$v=19$m=65536,t=1,p=1$" + salt + "$" + sum,
		"$argon2d$v=19$m=65536,t=1,p=1$" + salt + "$" + sum,
		"$2b$31$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
		"$2b$15$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
		"$2b$03$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
		"$2b$00$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
		"$2b$1a$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
		"$2x$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
		"$2b$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3X",
		"$2b$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3X!",
		"$scrypt$ln=30,r=8,p=1$c2FsdHNhbHQ$" + sum,
		"$scrypt$ln=20,r=8,p=1$c2FsdHNhbHQ$" + sum,
		"$scrypt$ln=14,r=8,p=4294967295$c2FsdHNhbHQ$" + sum,
		"$scrypt$ln=1,r=4294967295,p=1$c2FsdHNhbHQ$" + sum,
		"$scrypt$ln=16,r=1,p=1$c2FsdHNhbHQ$" + sum,
		"$scrypt$ln=14,r=8,p=1,x=2$c2FsdHNhbHQ$" + sum,
		"scrypt:1073741824:8:1$salt$" + strings.Repeat("a", 64),
		"scrypt:16385:8:1$salt$" + strings.Repeat("a", 64),
		"$7$zzzzzzzzzzzsalt$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D",
		"$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8",
		"$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8z",
		"$pbkdf2-sha256$1000000000$c2FsdHNhbHQ$" + sum,
		"$pbkdf2-sha256$0$c2FsdHNhbHQ$" + sum,
		"$pbkdf2-sha256$-1$c2FsdHNhbHQ$" + sum,
		"$pbkdf2-sha256$i=1000,l=20$c2FsdHNhbHQ$" + sum,
		"$pbkdf2-sha1$1000$c2FsdHNhbHQ$" + sum,
		"pbkdf2_sha256$3000001$salt$9/6V8mI8gIUOW/sbq/n/c1lAJrAaVQxAb3DFW2LEQ48=",
		"$merlon$of=md4$argon2id$v=19$m=65536,t=1,p=1$" + salt + "$" + sum,
		"$merlon$of=md5,before=$argon2id$v=19$m=65536,t=1,p=1$" + salt + "$" + sum,
		"$merlon$of=md5,beside=AAAA$argon2id$v=19$m=65536,t=1,p=1$" + salt + "$" + sum,
		"$merlon$of=md5$argon2id$v=19$m=4194304,t=1,p=1$" + salt + "$" + sum,
		"$merlon$of=md5$2b$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
		"$merlon$keyid=short$2b$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
		"$1$saltsalt$NuzA7WTAelpl95xgBGWN60",
		"$apr1$saltsalt$NuzA7WTAelpl95xgBGWN60",
		"$6$salt$NuzA7WTAelpl95xgBGWN60",
		"3cb4e732631f47e6eb961f34554b7cde",
		"plain text",
	} {
		err := password.Valid(stored)
		if !errors.Is(err, password.ErrBadHash) || strings.Contains(err.Error(), stored) {
			t.Errorf("%s: %v", stored, err)
		}
	}
	// One of them, by way of all: a wrong password for people, an error for the operator.
	if got := verify(t, h, "$argon2id$v=19$m=4194304,t=1,p=1$"+salt+"$"+sum, right); got != "the stored hash cannot be verified: its cost is out of bounds" {
		t.Error(got)
	}
}

func TestPepper(t *testing.T) {
	first, second := pepper(t, "1"), pepper(t, "2")
	plain := newHasher(t, password.Config{})
	one := newHasher(t, password.Config{Pepper: first})
	two := newHasher(t, password.Config{Pepper: second, OldPeppers: []secrets.Ref{first}})
	only := newHasher(t, password.Config{Pepper: second})
	for _, c := range []struct {
		name string
		by   *password.Hasher
		of   *password.Hasher
		want string
	}{
		{"a hash from before the pepper is replaced", one, plain, "right, old"},
		{"that of the pepper stays", one, one, "right"},
		{"that of the pepper before is replaced", two, one, "right, old"},
		{"and the new one stays", two, two, "right"},
	} {
		stored := hashOf(t, c.of, right)
		if got := verify(t, c.by, stored, right); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
		if got := verify(t, c.by, stored, "wrong horse"); got != "wrong" {
			t.Errorf("%s: wrong password: %s", c.name, got)
		}
	}
	for name, h := range map[string]*password.Hasher{"without it": plain, "with another": only} {
		if got := verify(t, h, hashOf(t, one, right), right); !strings.Contains(got, "the pepper with the id ") {
			t.Errorf("a hash with a pepper, %s: %s", name, got)
		}
	}
}

func TestOutdated(t *testing.T) {
	weak := newHasher(t, password.Config{})
	strong := newHasher(t, password.Config{Argon2: password.Argon2{Memory: 19 * merlon.MiB, Time: 2}})
	slow := newHasher(t, password.Config{Hash: "bcrypt", BcryptCost: 11})
	quick := newHasher(t, password.Config{Hash: "bcrypt", BcryptCost: 10})
	for _, c := range []struct {
		name   string
		by, of *password.Hasher
		want   string
	}{
		{"a weaker cost is replaced", strong, weak, "right, old"},
		{"a stronger one stays, whichever replica measured it", weak, strong, "right"},
		{"a weaker bcrypt is replaced", slow, quick, "right, old"},
		{"a stronger one stays", quick, slow, "right"},
		{"another kind is replaced", weak, slow, "right, old"},
		{"whichever it is", slow, weak, "right, old"},
	} {
		if got := verify(t, c.by, hashOf(t, c.of, right), right); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		config password.Config
		want   string
	}{
		{password.Config{Hash: "md5"}, `hash "md5": must be argon2id or bcrypt`},
		{password.Config{Argon2: password.Argon2{Memory: 8 * merlon.MiB, Time: 10}}, `argon2.memory "8MiB": must be from 12MiB to 256MiB`},
		{password.Config{Argon2: password.Argon2{Memory: merlon.GiB}}, `argon2.memory "1GiB": must be from 12MiB to 256MiB`},
		{password.Config{Argon2: password.Argon2{Memory: 12*merlon.MiB + 1}}, `in whole KiB`},
		{password.Config{Argon2: password.Argon2{Memory: 12 * merlon.MiB, Time: 2}}, `argon2.time "2": must be from 3 to 85 with 12MiB`},
		{password.Config{Argon2: password.Argon2{Memory: 19 * merlon.MiB, Time: 1}}, `argon2.time "1": must be from 2 to 53 with 19MiB`},
		{password.Config{Argon2: password.Argon2{Memory: 256 * merlon.MiB, Time: 5}}, `must be from 1 to 4 with 256MiB`},
		{password.Config{Argon2: password.Argon2{Time: -1}}, `argon2.time "-1": must be from 1 to 22 with 46MiB`},
		{password.Config{Argon2: cheap, BcryptCost: 9}, `bcrypt_cost "9": must be from 10 to 14`},
		{password.Config{Argon2: cheap, BcryptCost: 15}, `bcrypt_cost "15": must be from 10 to 14`},
		{password.Config{Argon2: cheap, AtOnce: -1}, `at_once "-1": must be from 1 to 256`},
		{password.Config{Argon2: cheap, Queue: 10001}, `queue "10001": must be from 1 to 10000`},
		{password.Config{Argon2: cheap, Wait: 1}, `wait "1ns": must be from 10ms to 1m`},
		{password.Config{Argon2: cheap, OldPeppers: []secrets.Ref{"env:MERLON_TEST_NO_SUCH"}}, `old_peppers[0] "env:MERLON_TEST_NO_SUCH": `},
	} {
		_, err := password.New(c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
	}
	_, err := password.New(password.Config{Hash: "md5", BcryptCost: 1, Queue: -1})
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 3 {
		t.Errorf("not all mistakes are told at once: %v", err)
	}
}

func TestCalibration(t *testing.T) {
	h, err := password.New(password.Config{})
	if err != nil {
		t.Fatal(err)
	}
	memory, passes := password.Passes(h)
	if memory != 47104 || passes < 1 || passes > 8 {
		t.Errorf("m=%d, t=%d", memory, passes)
	}
	for size, least := range map[merlon.Size]uint32{12 * merlon.MiB: 3, 19456 * merlon.KiB: 2, 47104 * merlon.KiB: 1} {
		h, err := password.New(password.Config{Argon2: password.Argon2{Memory: size}})
		if err != nil {
			t.Fatal(err)
		}
		if _, passes := password.Passes(h); passes < least {
			t.Errorf("%s: t=%d is below the floor", size, passes)
		}
	}
	h = newHasher(t, password.Config{Argon2: password.Argon2{Memory: 64 * merlon.MiB, Time: 7}})
	if memory, passes := password.Passes(h); memory != 65536 || passes != 7 {
		t.Errorf("what is set is not taken: m=%d, t=%d", memory, passes)
	}
}

func BenchmarkHash(b *testing.B) {
	for name, c := range map[string]password.Config{"defaults": {}, "bcrypt": {Hash: "bcrypt"}} {
		b.Run(name, func(b *testing.B) {
			h, err := password.New(c)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := h.Hash(context.Background(), right); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
