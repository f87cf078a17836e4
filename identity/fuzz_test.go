package identity_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/merlon-dev/merlon/identity"
)

func FuzzParseBasic(f *testing.F) {
	f.Add("Basic YW5uOng=")
	f.Add("basic  !!!")
	f.Add("Basic " + base64.StdEncoding.EncodeToString([]byte("m\xfc:\x00")))
	f.Fuzz(func(t *testing.T, field string) {
		user, pass, ok := identity.ParseBasic(field)
		if !ok {
			return
		}
		if user == "" || strings.ContainsAny(user, ":\x00\r\n") || strings.ContainsAny(pass, "\x00\r\n") || !utf8.ValidString(user+pass) || len(field) > 4096 {
			t.Errorf("%q became %q and %q", field, user, pass)
		}
		again, p, ok := identity.ParseBasic("Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass)))
		if len(user)+len(pass) < 2000 && (!ok || again != user || p != pass) {
			t.Errorf("%q, %q are read back as %q, %q", user, pass, again, p)
		}
	})
}

func FuzzParseHtpasswd(f *testing.F) {
	f.Add("ann:$2y$10$LMdg.wk8Q0bI8GJ9pXQ1K.Dn3C9kxIvr5wxB0FTUJJ9Twd9oxGMkK\n")
	f.Add("a:{SHA}x\nb\n:")
	f.Fuzz(func(t *testing.T, text string) {
		users, err := identity.ParseHtpasswd([]byte(text))
		for user, hash := range users {
			if user == "" || strings.Contains(user, ":") || !strings.HasPrefix(hash, "$2") && !strings.HasPrefix(hash, "$argon2id$") {
				t.Errorf("%q has %q (%v)", user, hash, err)
			}
		}
	})
}

func FuzzParseWindow(f *testing.F) {
	f.Add("Mon-Fri,Sun 22:00-06:00 UTC")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		begin := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		for h := range 7 * 48 {
			in, err := identity.ParseWindow(text, begin.Add(time.Duration(h)*30*time.Minute))
			if err != nil {
				return
			}
			if in {
				n++
			}
		}
		_ = n // a window may be shorter than what is looked at; it must only not panic
	})
}
