package body

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"

	"github.com/andybalholm/brotli"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// A body may become MaxRatio times as long when it is decoded. Text hardly
// ever does; bombs live of it. Bodies of less than RatioMatters are not
// measured.
const (
	MaxRatio     = 200
	RatioMatters = 64 << 10
)

// ErrBomb means that a body is not worth decompressing.
var ErrBomb = fmt.Errorf("becomes more than %d times as long when decompressed", MaxRatio)

// Coding returns the coding of a body, empty if there is none. Only
// one layer is understood (RFC 9110, section 8.4.1).
func Coding(fields []string) (string, error) {
	if len(fields) == 0 {
		return "", nil
	}
	if len(fields) > 1 {
		return "", errors.New("there are several Content-Encoding fields")
	}
	switch c := strings.ToLower(strings.Trim(fields[0], " \t")); c {
	case "identity", "":
		return "", nil
	case "gzip", "x-gzip", "br":
		return c, nil
	}
	return "", fmt.Errorf("the content coding %q is not understood", shorten(fields[0]))
}

// Decode decompresses a whole body of at most limit decoded bytes.
func Decode(coding string, b []byte, limit int64) ([]byte, error) {
	bound := limit
	if ratio := int64(len(b)) * MaxRatio; ratio > RatioMatters && ratio < bound {
		bound = ratio
	} else if ratio <= RatioMatters {
		bound = min(bound, RatioMatters)
	}
	src := bytes.NewReader(b)
	var r io.Reader
	if coding == "br" {
		r = brotli.NewReader(narrow(src, bound))
	} else {
		zr, err := gzip.NewReader(src)
		if err != nil {
			return nil, err
		}
		zr.Multistream(false)
		r = zr
	}
	plain, err := io.ReadAll(io.LimitReader(r, bound+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(plain)) > bound && bound < limit:
		return nil, ErrBomb
	case int64(len(plain)) > bound:
		return nil, ErrTooLong
	case src.Len() > 0:
		// Parsers differ in whether they go on reading here.
		return nil, errors.New("has more after the end of the compressed data")
	}
	return plain, nil
}

// narrow lowers the window that brotli data ask for to what a text of n bytes
// can make use of: a decoder makes room for all of it, up to 16 MiB for a body
// of 300 bytes. Distances reach back to the beginning of the text at most, so
// that the text is the same (RFC 7932, sections 4 and 9.1: of a window of 18 bits
// and more the first four bits are 1 and how many more than 17 there are).
func narrow(src *bytes.Reader, n int64) io.Reader {
	first, err := src.ReadByte()
	if err != nil || first&1 == 0 || first>>1&7 == 0 {
		_, _ = src.Seek(0, io.SeekStart)
		return src
	}
	most := max(18, bits.Len64(uint64(n)+16)) // a window of w bits is 16 less than 2 to the w
	if asked := int(17 + first>>1&7); asked > most {
		first = first&0xf1 | byte(most-17)<<1
	}
	return io.MultiReader(bytes.NewReader([]byte{first}), src)
}

// minRun is the length of an attack that is worth looking for in compressed
// data. Shorter readable pieces occur by chance.
const minRun = 10

// Readable returns the readable pieces of a compressed form, as a server would
// read them that ignores Content-Encoding, as PHP does: there are compressed
// data that are a form themselves. What the form contains anyway is left out.
func Readable(compressed, plain []byte) []message.Pair {
	var found []message.Pair
	var t texts
	isText := func(c byte) bool { return 0x20 <= c && c < 0x7f || c == '\t' || c == '\r' || c == '\n' }
	for i := 0; i < len(compressed); i++ {
		start := i
		for i < len(compressed) && isText(compressed[i]) {
			i++
		}
		if run := compressed[start:i]; len(run) >= minRun && !bytes.Contains(plain, run) {
			for field := range strings.SplitSeq(string(run), "&") {
				found = append(found, readField(field, &t))
			}
		}
	}
	return found
}
