package secrets_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/secrets"
)

func key(t testing.TB, text string) secrets.Key {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestBox(t *testing.T) {
	k := key(t, strings.Repeat("k", 32))
	box := k.Box("totp")
	sealed := box.Seal([]byte("seed"), "ann")
	if bytes.Contains(sealed, []byte("seed")) {
		t.Error("the text can be read")
	}
	if bytes.Equal(sealed, box.Seal([]byte("seed"), "ann")) {
		t.Error("equal texts look equal")
	}
	if got, err := k.Box("totp").Open(sealed, "ann"); err != nil || string(got) != "seed" {
		t.Errorf("got %q, %v", got, err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another place":   func() ([]byte, error) { return box.Open(sealed, "bob") },
		"another purpose": func() ([]byte, error) { return k.Box("cookie").Open(sealed, "ann") },
		"another key":     func() ([]byte, error) { return key(t, strings.Repeat("x", 32)).Box("totp").Open(sealed, "ann") },
		"cut":             func() ([]byte, error) { return box.Open(sealed[:len(sealed)-1], "ann") },
		"empty":           func() ([]byte, error) { return box.Open(nil, "ann") },
	} {
		if got, err := open(); err == nil {
			t.Errorf("%s: opened: %q", name, got)
		}
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := box.Open(changed, "ann"); err == nil {
			t.Errorf("byte %d changed: opened", i)
		}
	}
}

func TestShortKeyIsRefused(t *testing.T) {
	if _, err := secrets.NewKey(secrets.New(strings.Repeat("k", 31))); err == nil || strings.Contains(err.Error(), "kkk") {
		t.Errorf("got %v", err)
	}
}
