package token

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

// members are those of a JSON object that was read strictly.
type members map[string]any

// maxDepth is how deep headers and claims may be nested.
const maxDepth = 16

// readObject reads one JSON object: valid UTF-8, nothing after it, and no
// member twice in any object of it, since another reader might believe the
// other one (RFC 8725, 2.10). The decoder is go-jose's, which also takes names
// as they are, where encoding/json would ignore their case.
func readObject(b []byte) (members, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("is not UTF-8")
	}
	if deep(b) {
		return nil, errors.New("is nested too deep")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.SetNumberType(json.UnmarshalJSONNumber)
	var m map[string]any
	if err := dec.Decode(&m); err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errors.New("is not an object")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("has something after the object")
	}
	return m, nil
}

// deep reports whether brackets are nested deeper than maxDepth.
func deep(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// has reports whether there is such a member, whatever it holds.
func (m members) has(name string) bool {
	_, ok := m[name]
	return ok
}

// text returns a member that must be a text, if it is there; null is none.
func (m members) text(name string) (string, error) {
	v, ok := m.at(name)
	if !ok {
		return "", nil
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%s is no text", name)
	}
	if !plain(s) {
		return "", fmt.Errorf("%s has characters that nobody can see, or is too long", name)
	}
	return s, nil
}

// maxText is how many bytes a claim that goes on to backends may have.
const maxText = 1024

// plain reports whether a text may go into header fields and logs.
func plain(s string) bool {
	return len(s) <= maxText && !strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
	})
}

// maxTime is the end of the year 9999.
const maxTime = 253402300799

// time returns a NumericDate, if it is there: a whole number of seconds. RFC
// 7519 allows fractions, but readers do not agree on numbers such as 1e9.
func (m members) time(name string) (time.Time, error) {
	v, ok := m[name]
	if !ok {
		return time.Time{}, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("%s is no number", name)
	}
	sec, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil || sec <= 0 || sec > maxTime {
		return time.Time{}, fmt.Errorf("%s is no whole number of seconds", name)
	}
	return time.Unix(sec, 0), nil
}

// at returns the member with a name, or that a JSON pointer leads to.
func (m members) at(name string) (any, bool) {
	if !strings.HasPrefix(name, "/") {
		v, ok := m[name]
		return v, ok
	}
	var v any = map[string]any(m)
	for step := range strings.SplitSeq(name[1:], "/") {
		o, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		step = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		if v, ok = o[step]; !ok {
			return nil, false
		}
	}
	return v, true
}

// maxList is how many groups, roles or scopes a token may have.
const maxList = 512

// list returns a member that must be a list of texts, if it is there.
func (m members) list(name string) ([]string, error) {
	v, ok := m.at(name)
	if !ok {
		return nil, nil
	}
	vs, ok := v.([]any)
	if !ok || len(vs) > maxList {
		return nil, fmt.Errorf("%s is no list of texts, or too long", name)
	}
	out := make([]string, 0, len(vs))
	for _, v := range vs {
		s, ok := v.(string)
		if !ok || s == "" || !plain(s) {
			return nil, fmt.Errorf("%s has something in it that is no text", name)
		}
		out = append(out, s)
	}
	return out, nil
}

// scopes returns what a token is good for: a text with single spaces in
// between, or, if that is allowed, a list.
func (m members) scopes(name string, asList bool) ([]string, error) {
	v, ok := m.at(name)
	if !ok {
		return nil, nil
	}
	var out []string
	switch v := v.(type) {
	case string:
		if v == "" {
			return []string{}, nil
		}
		out = strings.Split(v, " ")
	case []any:
		if !asList {
			return nil, fmt.Errorf("%s is no text", name)
		}
		var err error
		if out, err = m.list(name); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s is no text", name)
	}
	if len(out) > maxList || slices.ContainsFunc(out, func(s string) bool { return !validScope(s) }) {
		return nil, fmt.Errorf("%s is not made of scopes", name)
	}
	return out, nil
}

// validScope reports whether s is a scope-token (RFC 6749, 3.3).
func validScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '"' || r == '\\'
	})
}

// audience returns whom a token is for: a text, or a list of texts.
func (m members) audience() ([]string, error) {
	switch v := m["aud"].(type) {
	case string:
		if v == "" || !plain(v) {
			return nil, errors.New("aud is no text")
		}
		return []string{v}, nil
	case []any:
		return m.list("aud")
	}
	return nil, errors.New("aud is missing, or neither a text nor a list")
}

// base64url is strict: one text, one value. Its decoder would still skip line
// ends; parse lets none get there.
var base64url = base64.RawURLEncoding.Strict()
