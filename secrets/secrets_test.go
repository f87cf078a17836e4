package secrets_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/merlon-dev/merlon/secrets"
)

const text = "hunter2"

// holder has a secret where formatting cannot call its methods by name alone.
type holder struct {
	Name   string
	Secret secrets.Secret
	List   []secrets.Secret
	Map    map[string]secrets.Secret
	Ptr    *secrets.Secret
	Any    any
	hidden secrets.Secret // which fmt prints without asking its methods
}

func newHolder() holder {
	s := secrets.New(text)
	return holder{"n", s, []secrets.Secret{s}, map[string]secrets.Secret{"k": s}, &s, s, s}
}

func TestSecretCannotBePrinted(t *testing.T) {
	s := secrets.New(text)
	if s.Reveal() != text {
		t.Fatal("what was put in does not come out")
	}
	if (secrets.Secret{}).Reveal() != "" {
		t.Error("the zero Secret is not empty")
	}
	for _, v := range []any{s, &s, newHolder(), []any{s}, fmt.Errorf("wrapped: %v", s)} {
		for verb := rune('A'); verb <= 'z'; verb++ {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "20", ".3"} {
				if out := fmt.Sprintf("%"+flags+string(verb), v); leaks(out) {
					t.Errorf("%%%s%c of %T prints %s", flags, verb, v, out)
				}
			}
		}
		if out := fmt.Sprint(v) + fmt.Sprintln(v); leaks(out) {
			t.Errorf("Sprint of %T prints %s", v, out)
		}
	}
	if got := s.String(); got != "[secret]" {
		t.Errorf("String is %q", got)
	}
}

// leaks looks for the text and for its usual disguises.
func leaks(out string) bool {
	out = strings.ToLower(out)
	for _, form := range []string{text, fmt.Sprintf("%x", text), fmt.Sprintf("% x", text), fmt.Sprint([]byte(text)), "0x68, 0x75"} {
		if strings.Contains(out, form) {
			return true
		}
	}
	return false
}

func TestSecretIsNotWritten(t *testing.T) {
	h := newHolder()
	h.Any = nil
	b, err := json.Marshal(h)
	if err != nil || leaks(string(b)) || !strings.Contains(string(b), `"Secret":"[secret]"`) {
		t.Errorf("json: %s, %v", b, err)
	}
	b, err = yaml.Marshal(h)
	if err != nil || leaks(string(b)) {
		t.Errorf("yaml: %s, %v", b, err)
	}
	b, err = json.Marshal(map[string]any{"a": []any{secrets.New(text)}})
	if err != nil || leaks(string(b)) {
		t.Errorf("json: %s, %v", b, err)
	}
}

func TestSecretIsNotLogged(t *testing.T) {
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		l := slog.New(h)
		s := secrets.New(text)
		l.Info("m", "s", s, "p", &s, "h", newHolder(), slog.Group("g", "s", s))
		l.With("s", s).WithGroup("g").Error("m", "err", fmt.Errorf("bad %q", s))
	}
	if leaks(out.String()) || strings.Count(out.String(), "[secret]") < 6 {
		t.Error(out.String())
	}
}

func TestRefRefusesTheSecretItself(t *testing.T) {
	for _, in := range []string{text, "", "env:", "file:", "vault:x/" + text, ":" + text, "ENV:" + text, " env:" + text, "password=" + text} {
		var r secrets.Ref
		err := r.UnmarshalText([]byte(in))
		if err == nil || r != "" || leaks(err.Error()) || !strings.Contains(err.Error(), "env:NAME or file:/path") {
			t.Errorf("%q: %q, %v", in, r, err)
		}
		if _, err := secrets.Ref(in).Resolve(); err == nil || in != "env:" && in != "file:" && leaks(err.Error()) {
			t.Errorf("resolving %q: %v", in, err)
		}
	}
	for _, in := range []string{"env:NAME", "file:/run/key", "file:relative"} {
		var r secrets.Ref
		if err := r.UnmarshalText([]byte(in)); err != nil || string(r) != in {
			t.Errorf("%q: %q, %v", in, r, err)
		}
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	t.Setenv("MERLON_TEST_SECRET", text)
	t.Setenv("MERLON_TEST_EMPTY", "")
	for _, c := range []struct{ name, ref, want, err string }{
		{"the environment", "env:MERLON_TEST_SECRET", text, ""},
		{"a name that is not set", "env:MERLON_TEST_UNSET", "", "is empty or not set"},
		{"a name that is empty", "env:MERLON_TEST_EMPTY", "", "is empty or not set"},
		{"a file", file("plain", text, 0o600), text, ""},
		{"a file that the group may read", file("group", text, 0o640), text, ""},
		{"one line end is no part of it", file("line", text+"\n", 0o600), text, ""},
		{"nor is that of Windows", file("crlf", text+"\r\n", 0o600), text, ""},
		{"a second one is", file("lines", text+"\n\n", 0o600), text + "\n", ""},
		{"a file that others may read", file("open", text, 0o604), "", "must not be readable by others"},
		{"an empty file", file("empty", "\n", 0o600), "", "is empty or not set"},
		{"a missing file", "file:" + dir + "/missing", "", "no such file"},
		{"a folder", "file:" + dir, "", "must not be readable by others"},
	} {
		if c.name == "a folder" {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		got, err := secrets.Ref(c.ref).Resolve()
		if got.Reveal() != c.want || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || leaks(err.Error())) {
			t.Errorf("%s: %q, %v", c.name, got.Reveal(), err)
		}
	}
	if _, err := secrets.Ref("file:" + dir + "/missing").Resolve(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file is not told as one: %v", err)
	}
}
