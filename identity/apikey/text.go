package apikey

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// checksum lets a scanner that looks for leaked keys tell a key from what only
// looks like one, and a mistyped key be refused without asking the store. It
// protects nothing.
func checksum(head string) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], crc32.ChecksumIEEE([]byte(head)))
	return encoding.EncodeToString(b[:])
}

// parse returns the id of a key's text, if it is one letter for letter.
func parse(text string) (id string, ok bool) {
	if len(text) != textLen || !strings.HasPrefix(text, prefix) {
		return "", false
	}
	id, rest, _ := strings.Cut(text[len(prefix):], "_")
	if len(id) != idLen || !letters(id) || !letters(rest) {
		return "", false
	}
	head := text[:textLen-sumLen]
	return id, checksum(head) == text[textLen-sumLen:]
}

func letters(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

const prefix = "mk_"

// The lengths of a key's parts, in letters of RFC 4648 base32.
const (
	idLen     = 16 // 80 bits
	secretLen = 52 // 260 bits
	sumLen    = 7  // CRC-32
	textLen   = len(prefix) + idLen + 1 + secretLen + sumLen
)

// newText makes a key: "mk_" id "_" secret checksum.
func newText() (text, id string) {
	id = rand.Text()[:idLen]
	head := prefix + id + "_" + rand.Text() + rand.Text()
	return head + checksum(head), id
}
