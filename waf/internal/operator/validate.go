package operator

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// A byteRange is @validateByteRange: it matches where a byte is outside the
// range.
type byteRange struct {
	outside  match.ByteSet
	required match.Requirement
}

func newByteRange(arg string) (Operator, error) {
	if arg == "" {
		return constant(true), nil
	}
	var inside match.ByteSet
	for part := range strings.SplitSeq(arg, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(part), "-")
		if !ok {
			to = from
		}
		lo, err := byteValue(from)
		if err != nil {
			return nil, err
		}
		hi, err := byteValue(to)
		if err != nil {
			return nil, err
		}
		inside.AddRange(lo, hi)
	}
	r := byteRange{}
	for c := range 256 {
		if !inside.Has(byte(c)) {
			r.outside.Add(byte(c))
		}
	}
	r.required = needs(r.outside)
	return r, nil
}

func byteValue(s string) (byte, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 255 {
		return 0, fmt.Errorf("%q is no byte: want 0 to 255", s)
	}
	return byte(n), nil
}

func (r byteRange) Match(value, _ string) bool {
	for i := range len(value) {
		if r.outside.Has(value[i]) {
			return true
		}
	}
	return false
}

func (r byteRange) Required() match.Requirement { return r.required }

// urlEncoding is @validateUrlEncoding: it matches where a percent sign is not
// followed by two hexadecimal digits.
type urlEncoding struct{}

func (urlEncoding) Match(value, _ string) bool {
	for {
		i := strings.IndexByte(value, '%')
		if i < 0 {
			return false
		}
		if i+2 >= len(value) || !isHex(value[i+1]) || !isHex(value[i+2]) {
			return true
		}
		value = value[i+3:]
	}
}

func isHex(c byte) bool { return c-'0' <= 9 || (c|0x20)-'a' <= 5 }

func (urlEncoding) Required() match.Requirement { return needs(setOf("%")) }

// utf8Encoding is @validateUtf8Encoding: it matches what is no UTF-8.
type utf8Encoding struct{}

func (utf8Encoding) Match(value, _ string) bool { return !utf8.ValidString(value) }

func (utf8Encoding) Required() match.Requirement {
	var high match.ByteSet
	high.AddRange(0x80, 0xff) // what is no UTF-8 is not folded away
	return match.Requirement{Needs: []match.ByteSet{high}}
}

// needs requires a byte of a set. The set grows to what a byte of it may be
// folded to.
func needs(set match.ByteSet) match.Requirement {
	longS, kelvin := match.Presence("\u017f"), match.Presence("\u212a")
	if set.Meets(&longS) {
		set.Add('s')
	}
	if set.Meets(&kelvin) {
		set.Add('k')
	}
	return match.Requirement{Needs: []match.ByteSet{set.Folded()}}
}

func setOf(bytes string) match.ByteSet { return match.Presence(bytes) }
