// Package secrets keeps secrets out of files, logs and error texts: the
// configuration holds only references, and what they resolve to cannot be
// printed.
//
// It knows environment variables and files. It does not wipe memory, and
// cannot protect a secret from the process that spends it.
package secrets

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// A Secret is text that refuses to be printed. Use Reveal where it is spent.
type Secret struct {
	// fmt looks into unexported fields and behind verbs it does not know
	// without asking any method, but it does not follow pointers there.
	text *string
}

// New returns text as a Secret.
func New(text string) Secret { return Secret{&text} }

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

const hidden = "[secret]"

// String, GoString, Format, LogValue and MarshalText all hide the text.
func (Secret) String() string               { return hidden }
func (Secret) GoString() string             { return hidden }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(hidden)) }
func (Secret) LogValue() slog.Value         { return slog.StringValue(hidden) }
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// A Ref says where a secret is: "env:NAME" or "file:/path". The text itself
// in its place is an error that does not repeat it.
type Ref string

// UnmarshalText reads a reference.
func (r *Ref) UnmarshalText(b []byte) error {
	kind, place, ok := strings.Cut(string(b), ":")
	if !ok || place == "" || kind != "env" && kind != "file" {
		return errors.New("must be a reference such as env:NAME or file:/path, never the secret itself")
	}
	*r = Ref(b)
	return nil
}

// Resolve fetches the secret. One trailing line end of a file is dropped; an
// empty secret is an error. A file that others may read is refused.
func (r Ref) Resolve() (Secret, error) {
	kind, place, _ := strings.Cut(string(r), ":")
	var text string
	switch kind {
	case "env":
		text = os.Getenv(place)
	case "file":
		info, err := os.Stat(place)
		if err != nil {
			return Secret{}, err
		}
		if info.Mode().Perm()&0o007 != 0 {
			return Secret{}, fmt.Errorf("%s: must not be readable by others (chmod o-rwx)", place)
		}
		b, err := os.ReadFile(place)
		if err != nil {
			return Secret{}, err
		}
		text = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	default:
		return Secret{}, errors.New("must be a reference such as env:NAME or file:/path")
	}
	if text == "" {
		return Secret{}, fmt.Errorf("%s is empty or not set", r)
	}
	return New(text), nil
}
