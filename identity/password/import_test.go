package password_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/identity/password"
)

// digests are those of right that Python's hashlib has made.
var digests = map[string]string{
	"md5":             "3cb4e732631f47e6eb961f34554b7cde",
	"MD5 in capitals": "3CB4E732631F47E6EB961F34554B7CDE",
	"sha1":            "2f9e53523b62abc141a2b4d6019d23cba835dbd0",
	"sha256":          "4104d36f8da2c254349f85836793ebe029e0c957063a34c91c2e9203187b5631",
	"sha512":          "56b698defedb5a435b634afe3320bbaf3fdcd920b6c503a446fc7b7a776b298d479d1ba6a8b617808eb0bf579ce9a95d668347bcab7149085ac93cb27995197b",
	"md5, Django":     "md5$pepper$52f36768c11844771e5f7ff576e2dba2",
	"md5, no salt":    "md5$$3cb4e732631f47e6eb961f34554b7cde",
	"sha1, Django":    "sha1$pepper$d11dc5896bf42fb4320130682b5909d363bf770b",
	"sha256, Django":  "sha256$pepper$869a1fa0609a1d15a5c3eb891428b7a6c8395b2ee10c4762e97ffca0ebe8c0b5",
	"MD5, LDAP":       "{MD5}PLTnMmMfR+brlh80VUt83g==",
	"SMD5":            "{SMD5}D4rOOyuX/Dgg3vClp5z5OnNhbHQ=",
	"SHA":             "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=",
	"SSHA":            "{SSHA}LhKrkM9Fy+zlstjdD7Kv2s6QvhBzYWx0",
	"ssha":            "{ssha}LhKrkM9Fy+zlstjdD7Kv2s6QvhBzYWx0",
	"SHA256":          "{SHA256}QQTTb42iwlQ0n4WDZ5Pr4CngyVcGOjTJHC6SAxh7VjE=",
	"SSHA256":         "{SSHA256}n+NyCAC8BTzorAU7AQEsEfh4qDAh0HpRtPLX0dsQdApzYWx0",
	"SHA512":          "{SHA512}VraY3v7bWkNbY0r+MyC7rz/c2SC2xQOkRvx7endrKY1HnRumqLYXgI6wv1ec6aldZoNHvKtxSQhayTyyeZUZew==",
	"SSHA512":         "{SSHA512}MObRFvUHqU5pLIXjc0HkeJH+PKVdEQk34oSyXkDftCxTU6Fk9rWjilWA553MtCFyazGhAOPiDyO1Rv1hndA96XNhbHQ=",
}

func TestImportWraps(t *testing.T) {
	for kind, h := range map[string]*password.Hasher{
		"argon2id": newHasher(t, password.Config{}),
		"pepper":   newHasher(t, password.Config{Pepper: pepper(t, "p")}),
		"bcrypt":   newHasher(t, password.Config{Hash: "bcrypt", BcryptCost: 10}),
	} {
		for name, old := range digests {
			if kind != "argon2id" && name != "SSHA" && name != "md5" {
				continue
			}
			t.Run(kind+", "+name, func(t *testing.T) {
				stored, err := h.Import(t.Context(), old)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(stored, "$merlon$of=") || !strings.Contains(stored, "$argon2id$") || strings.Contains(stored, old) {
					t.Errorf("stored as %s", stored)
				}
				if again, err := password.Rewrite(stored); err != nil || again != stored {
					t.Errorf("%s, read and written: %s, %v", stored, again, err)
				}
				if got := verify(t, h, stored, right); got != "right, old" {
					t.Errorf("right: %s", got)
				}
				for _, wrong := range []string{"wrong", old} {
					if got := verify(t, h, stored, wrong); got != "wrong" {
						t.Errorf("%s: %s", wrong, got)
					}
				}
				// The first log-in replaces it.
				if got := verify(t, h, hashOf(t, h, right), right); got != "right" {
					t.Errorf("upgraded: %s", got)
				}
			})
		}
	}
}

func TestImportKeeps(t *testing.T) {
	h := newHasher(t, password.Config{})
	for name, old := range known {
		if stored, err := h.Import(t.Context(), old); err != nil || stored != old {
			t.Errorf("%s: %s, %v", name, stored, err)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	h := newHasher(t, password.Config{})
	for _, old := range []string{
		"", "hunter2", "3cb4e732631f47e6eb961f34554b7cd", "3cb4e732631f47e6eb961f34554b7cdg", "md5$salt", "md5$salt$",
		"md5$salt$2f9e53523b62abc141a2b4d6019d23cba835dbd0", "crc32$salt$00000000", "md5$" + strings.Repeat("s", 65) + "$3cb4e732631f47e6eb961f34554b7cde",
		"{SSHA}L55TUjtiq8FBorTWAZ0jy6g129A=", "{SHA}LhKrkM9Fy+zlstjdD7Kv2s6QvhBzYWx0", "{CRYPT}abc", "{", "{SHA}", "{SHA}!",
		"$2b$31$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu", "$1$saltsalt$NuzA7WTAelpl95xgBGWN60",
	} {
		stored, err := h.Import(t.Context(), old)
		if err == nil {
			t.Errorf("%q became %s", old, stored)
		} else if old != "" && len(old) > 3 && strings.Contains(err.Error(), old) {
			t.Errorf("the error repeats it: %v", err)
		}
	}
}

func TestHtpasswd(t *testing.T) {
	const bcrypt = "$2y$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu"
	users, err := password.Htpasswd(strings.NewReader("# people\n\nann:" + bcrypt + "\r\nbob:" + bcrypt + "\n"))
	if err != nil || len(users) != 2 || users["ann"] != bcrypt || users["bob"] != bcrypt {
		t.Errorf("%v, %v", users, err)
	}
	_, err = password.Htpasswd(strings.NewReader(strings.Join([]string{
		"apr:$apr1$saltsalt$NuzA7WTAelpl95xgBGWN60",
		"md5:$1$saltsalt$NuzA7WTAelpl95xgBGWN60",
		"sha:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=",
		"des:rl.3StKT.4T8M",
		"plain:hunter2",
		"ok:" + bcrypt,
		"ok:" + bcrypt,
		"nothing",
		":" + bcrypt,
		"slow:$2y$31$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu",
	}, "\n")))
	if err == nil {
		t.Fatal("nothing was refused")
	}
	for _, want := range []string{
		"line 1: the stored hash cannot be verified: MD5 (apr1) is too fast to keep passwords; make it anew with htpasswd -B",
		"line 2: the stored hash cannot be verified: MD5 (md5crypt)",
		"line 3: plain MD5 and SHA digests are too fast",
		"line 4: ", "line 5: ",
		"line 7: the name is there already",
		"line 8: must have the form name:hash",
		"line 9: must have the form name:hash",
		"line 10: the stored hash cannot be verified: its cost is out of bounds",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "line 6") || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
	if _, err := password.Htpasswd(strings.NewReader("ann:" + strings.Repeat("a", 5000))); err == nil {
		t.Error("an endless line was read")
	}
}

// FuzzStored: whatever stands in the database, it is read without panic, costs
// no more than the bounds, and is nobody's password.
func FuzzStored(f *testing.F) {
	for _, stored := range known {
		f.Add(stored)
	}
	for _, old := range digests {
		f.Add(old)
	}
	h := password.Unpaced(newHasher(f, password.Config{Pepper: pepper(f, "p")}))
	f.Add(hashOf(f, h, right))
	wrapped, err := h.Import(f.Context(), digests["SSHA"])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrapped)
	f.Add("$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, stored string) {
		kind, memory, work, err := password.Cost(stored)
		if err != nil {
			if password.Valid(stored) == nil {
				t.Error("refused, but valid")
			}
			return
		}
		bound := map[string]uint64{"argon2id": 1 << 20, "scrypt": 1 << 19, "bcrypt": 14, "pbkdf2-sha256": 3_000_000, "pbkdf2-sha512": 3_000_000}[kind]
		if memory > 256<<10 || work > bound || work == 0 {
			t.Errorf("%s: %d KiB, %d", kind, memory, work)
		}
		if kind == "bcrypt" && work > 6 || work > 20_000 {
			return // as good, but slow to try
		}
		if got := verify(t, h, stored, rand.Text()); got == "right" || got == "right, old" {
			t.Error("it is anybody's password")
		}
	})
}

func FuzzHtpasswd(f *testing.F) {
	f.Add("ann:$2y$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu\n#\n\nbob:x")
	f.Fuzz(func(t *testing.T, text string) {
		users, _ := password.Htpasswd(strings.NewReader(text))
		for name, stored := range users {
			if name == "" || strings.ContainsAny(name, ":\n") || password.Valid(stored) != nil {
				t.Errorf("%q: %q", name, stored)
			}
		}
	})
}
