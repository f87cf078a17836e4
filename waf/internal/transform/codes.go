package transform

import (
	"crypto/fips140"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"unsafe"
)

// base64Value is the value of a digit of base64, or negative.
var base64Value = func() (t [256]int8) {
	for c := range t {
		t[c] = -1
	}
	for v, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		t[c] = int8(v)
	}
	return t
}()

// base64Decode stops at padding, a space or a byte that is no digit, and
// keeps what it has. It skips line ends.
func base64Decode(a *Arena, s string) (string, bool) { return decodeBase64(a, s, false), true }

// base64DecodeExt skips what is no digit, and also reads the digits of
// base64url. It stops at padding.
func base64DecodeExt(a *Arena, s string) (string, bool) { return decodeBase64(a, s, true), true }

func decodeBase64(a *Arena, s string, lenient bool) string {
	d := a.room(len(s)/4*3 + 3)
	bits, n := 0, 0
	for i := range len(s) {
		c := s[i]
		v := int(base64Value[c])
		switch {
		case v >= 0:
		case c == '=' || c == ' ' && !lenient:
			return endBase64(a, d, bits, n)
		case lenient && c == '-':
			v = 62
		case lenient && c == '_':
			v = 63
		case lenient || c == '\r' || c == '\n':
			continue
		default:
			return endBase64(a, d, bits, n)
		}
		bits = bits<<6 | v
		n++
		if n == 4 {
			d = append(d, byte(bits>>16), byte(bits>>8), byte(bits))
			bits, n = 0, 0
		}
	}
	return endBase64(a, d, bits, n)
}

// endBase64 adds the bytes of an incomplete group of n digits.
func endBase64(a *Arena, d []byte, bits, n int) string {
	switch n {
	case 2:
		d = append(d, byte(bits>>4))
	case 3:
		d = append(d, byte(bits>>10), byte(bits>>2))
	}
	return a.take(d)
}

func base64Encode(a *Arena, s string) (string, bool) {
	d := a.room(base64.StdEncoding.EncodedLen(len(s)))
	return a.take(base64.StdEncoding.AppendEncode(d, bytesOf(s))), true
}

// hexDecode keeps a value that is not wholly hexadecimal.
func hexDecode(a *Arena, s string) (string, bool) {
	if len(s)%2 != 0 {
		return s, false
	}
	d := a.room(len(s) / 2)
	for i := 0; i < len(s); i += 2 {
		v := hexByte(s, i)
		if v < 0 {
			return s, false
		}
		d = append(d, byte(v))
	}
	return a.take(d), true
}

func hexEncode(a *Arena, s string) (string, bool) {
	return a.take(hex.AppendEncode(a.room(2*len(s)), bytesOf(s))), true
}

func length(a *Arena, s string) (string, bool) {
	v, _ := a.end(strconv.AppendInt(a.room(20), int64(len(s)), 10), s)
	return v, true
}

// md5Sum keeps the value where the program must not use MD5.
func md5Sum(a *Arena, s string) (string, bool) {
	if fips140.Enabled() {
		return s, false
	}
	sum := md5.Sum(bytesOf(s))
	return a.take(append(a.room(len(sum)), sum[:]...)), true
}

// sha1Sum keeps the value where the program must not use SHA-1.
func sha1Sum(a *Arena, s string) (string, bool) {
	if fips140.Enabled() {
		return s, false
	}
	sum := sha1.Sum(bytesOf(s))
	return a.take(append(a.room(len(sum)), sum[:]...)), true
}

// bytesOf is the bytes of s, to be read only.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
