package body_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/andybalholm/brotli"

	"github.com/merlon-dev/merlon/waf/internal/body"
)

func brotlied(t *testing.T, window int, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := brotli.NewWriterOptions(&b, brotli.WriterOptions{Quality: 5, LGWin: window})
	for len(text) > 0 { // in pieces, so that the encoder does not know the length
		n := min(len(text), 100_000)
		if _, err := w.Write(text[:n]); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever window brotli data ask for, the text is the same, up to the limit.
func TestBrotliWindows(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const limit = 1 << 20
	text := make([]byte, limit)
	for i := range text {
		text[i] = byte(r.Uint32())
		if i >= 900_000 { // from far back
			text[i] = text[i-900_000]
		}
	}
	for _, window := range []int{10, 16, 17, 18, 20, 21, 22, 24} {
		for _, n := range []int{0, 1, 1<<16 - 16, limit - 15, limit} {
			coded := brotlied(t, window, text[:n])
			kept := bytes.Clone(coded)
			got, err := body.Decode("br", coded, limit)
			if err != nil || !bytes.Equal(got, text[:n]) {
				t.Errorf("window %d, %d bytes: %d bytes, error %v", window, n, len(got), err)
			}
			if !bytes.Equal(coded, kept) {
				t.Errorf("window %d: the body is changed", window)
			}
		}
		if _, err := body.Decode("br", brotlied(t, window, append(text[:limit:limit], 'x')), limit); !errors.Is(err, body.ErrTooLong) {
			t.Errorf("window %d, too long: %v", window, err)
		}
	}
}

// A small body does not make the decoder take much memory.
func TestBrotliMemory(t *testing.T) {
	text := make([]byte, 20<<20)
	for i := range text {
		text[i] = byte(i*7 + i>>8)
	}
	coded := brotlied(t, 24, text)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := body.Decode("br", coded, 1<<20)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; err == nil || took > 2<<20 {
		t.Errorf("%d bytes took %d KiB, error %v", len(coded), took>>10, err)
	}
}
