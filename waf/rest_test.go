package waf_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf"
)

// page is n bytes of an ordinary page that does not compress too well.
func page(n int) string {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	words := strings.Fields("lorem ipsum dolor sit amet consectetur adipiscing elit do eiusmod tempor incididunt ut labore")
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "<p>%s %s %d %s</p>\n", words[r.IntN(len(words))], words[r.IntN(len(words))], r.IntN(100_000), words[r.IntN(len(words))])
	}
	return b.String()[:n]
}

// leakAt is a page of a MiB with a leak in it.
func leakAt(n int) string {
	all := page(1 << 20)
	return all[:n] + leak + all[n+len(leak):]
}

// pieces reads what it is made of piece by piece.
type pieces [][]byte

func (p *pieces) Read(b []byte) (int, error) {
	if len(*p) == 0 {
		return 0, io.EOF
	}
	n := copy(b, (*p)[0])
	if (*p)[0] = (*p)[0][n:]; len((*p)[0]) == 0 {
		*p = (*p)[1:]
	}
	return n, nil
}

func cut(s string, at ...int) io.Reader {
	var p pieces
	from := 0
	for _, n := range append(at, len(s)) {
		p = append(p, []byte(s[from:n]))
		from = n
	}
	return &p
}

// lateLeak reports whether an error is that of an answer that broke off.
func lateLeak(err error) bool {
	late, ok := errors.AsType[*merlon.LateRefusal](err)
	return ok && late.Guard == "waf" && late.Decision.Reason == waf.ResponseLeak && late.Decision.Code() == http.StatusBadGateway
}

const where = 600 << 10

var syntax = strings.Index(leak, "SQL syntax") // what comes before it is no leak yet

func TestRestOfAnswers(t *testing.T) {
	g := newGuard(t, waf.Config{})
	flat := leakAt(where)
	for _, c := range []struct {
		name, coding, text string
		at                 []int // where the upstream's pieces end
	}{
		{name: "at once", text: flat},
		{name: "in small pieces", text: flat, at: every(1000, len(flat))},
		{name: "split within the leak", text: flat, at: []int{where + syntax + 2}},
		{name: "a byte at a time", text: flat, at: oneByOne(where, where+len(leak))},
		{name: "just behind the beginning", text: leakAt(512<<10 - 10)},
		{name: "at the end", text: leakAt(1<<20 - len(leak))},
		{name: "gzip", coding: "gzip", text: flat},
		{name: "gzip in pieces", coding: "gzip", text: flat, at: []int{-1000}},
		{name: "br", coding: "br", text: flat},
		{name: "br in pieces", coding: "br", text: flat, at: []int{-1000}},
		{name: "a lie about gzip", coding: "gzip?", text: flat},
	} {
		if raced && c.name != "split within the leak" && c.name != "gzip" {
			continue // takes long
		}
		for _, known := range []bool{true, false} {
			t.Run(c.name+map[bool]string{true: "", false: ", chunked"}[known], func(t *testing.T) {
				body := coded(t, c.text, c.coding)
				a := reply{status: 200, contentType: "text/html", coding: strings.TrimSuffix(c.coding, "?"), length: -1}
				if known {
					a.length = int64(len(body))
				}
				at := c.at
				if len(at) == 1 && at[0] < 0 {
					at = every(-at[0], len(body))
				}
				a.body = cut(body, at...)
				d, res, r := exchanged(t, g, a)
				if !d.Passed() {
					t.Fatalf("%q %+v", d.Reason, d.Findings)
				}
				got, err := io.ReadAll(res.Body)
				if !lateLeak(err) {
					t.Fatalf("%d bytes, then %v", len(got), err)
				}
				if _, again := res.Body.Read(make([]byte, 10)); again == nil || again == io.EOF {
					t.Errorf("reading on: %v", again)
				}
				if err := res.Body.Close(); err != nil {
					t.Error(err)
				}
				seen := plainly(t, got, c.coding)
				if !strings.HasPrefix(c.text, seen) || strings.Contains(seen, leak[:strings.Index(leak, "MySQL")+5]) {
					t.Errorf("the leak got out, or what is before it is not what was sent (%d bytes)", len(seen))
				}
				if least := strings.Index(c.text, leak) - 200_000; len(seen) < least && len(seen) > 1 {
					t.Errorf("cut after %d bytes of text", len(seen))
				}
				v := r.Verdicts()[len(r.Verdicts())-1]
				if v.Guard != "waf" || v.Decision.Passed() || v.Decision.Findings[0].Part != "answer" || v.Decision.Findings[0].Rule != "951230" ||
					!strings.HasPrefix(v.Decision.Remedy, "waf:\n  exclude:\n    - {rule: 951230") {
					t.Errorf("recorded: %+v", v)
				}
			})
		}
	}
}

func every(n, of int) (at []int) {
	for i := n; i < of; i += n {
		at = append(at, i)
	}
	return at
}

func oneByOne(from, to int) (at []int) {
	for i := from; i < to; i++ {
		at = append(at, i)
	}
	return at
}

func coded(t *testing.T, text, coding string) string {
	switch coding {
	case "gzip":
		return zip(t, text)
	case "br":
		return brotlied(t, text)
	}
	return text
}

// plainly decodes what can be of an answer that broke off.
func plainly(t *testing.T, b []byte, coding string) string {
	var r io.Reader = bytes.NewReader(b)
	switch coding {
	case "gzip":
		zr, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = zr
	case "br":
		r = brotli.NewReader(r)
	}
	text, _ := io.ReadAll(r)
	return string(text)
}

// What is clean arrives as it was sent, and little memory is held.
func TestLongCleanAnswer(t *testing.T) {
	g := newGuard(t, waf.Config{})
	text := page(1 << 20)
	times := 50
	if raced {
		times = 1
	}
	for _, coding := range []string{"", "gzip", "br"} {
		body := text
		if raced && coding != "" {
			continue
		}
		if coding != "" {
			body = coded(t, strings.Repeat(text, 8), coding)
		}
		t.Run("coding "+coding, func(t *testing.T) {
			n := times
			if coding != "" {
				n = 1
			}
			src := make([]io.Reader, n)
			for i := range src {
				src[i] = strings.NewReader(body)
			}
			want := sha256.New()
			for range n {
				want.Write([]byte(body))
			}
			_, res, r := exchanged(t, g, reply{status: 200, contentType: "text/html", coding: coding, body: io.MultiReader(src...), length: -1})
			var before, after runtime.MemStats
			got, most, total := sha256.New(), uint64(0), 0
			buf := make([]byte, 32<<10)
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := 0; ; i++ {
				n, err := res.Body.Read(buf)
				got.Write(buf[:n])
				total += n
				if i%200 == 199 {
					runtime.GC()
					runtime.ReadMemStats(&after)
					if after.HeapAlloc > before.HeapAlloc {
						most = max(most, after.HeapAlloc-before.HeapAlloc)
					}
				}
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("after %d bytes: %v %+v", total, err, r.Verdicts())
				}
			}
			if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Errorf("%d bytes arrived, of %d, and not the same", total, n*len(body))
			}
			if most > 1<<20 {
				t.Errorf("%d bytes more are held than at the beginning", most)
			}
			for _, v := range r.Verdicts() {
				if len(v.Decision.Findings) > 0 || v.Decision.Effect != merlon.Allow {
					t.Errorf("recorded: %+v", v)
				}
			}
			_ = res.Body.Close()
		})
	}
}

// An answer that trickles is passed on as it comes, and judged.
func TestTricklingLeak(t *testing.T) {
	g := newGuard(t, waf.Config{})
	for _, coding := range []string{"", "gzip", "br"} {
		t.Run("coding "+coding, func(t *testing.T) {
			t.Parallel()
			src, w := io.Pipe()
			go func() {
				say := trickle(w, coding)
				say("the first line\n")
				time.Sleep(2200 * time.Millisecond) // by then the beginning is judged
				for i := range 20 {
					say(fmt.Sprintf("line %d\n", i))
					time.Sleep(20 * time.Millisecond)
				}
				say(leak[:syntax])
				time.Sleep(20 * time.Millisecond)
				say(leak[syntax:])
				_ = w.Close()
			}()
			d, res, _ := exchanged(t, g, reply{status: 200, contentType: "text/plain", coding: coding, body: src, length: -1})
			defer res.Body.Close()
			if !d.Passed() {
				t.Fatal(d.Reason)
			}
			reads := 0
			var got []byte
			for buf := make([]byte, 32<<10); ; reads++ {
				n, err := res.Body.Read(buf)
				got = append(got, buf[:n]...)
				if lateLeak(err) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if text := plainly(t, got, coding); reads < 20 || !strings.HasSuffix(text, "line 19\n"+leak[:syntax]) {
				t.Errorf("in %d pieces: %q", reads, text)
			}
		})
	}
}

// trickle returns a function that sends text and flushes.
func trickle(w io.Writer, coding string) func(string) {
	switch coding {
	case "gzip":
		zw := gzip.NewWriter(w)
		return func(s string) { _, _ = io.WriteString(zw, s); _ = zw.Flush() }
	case "br":
		bw := brotli.NewWriter(w)
		return func(s string) { _, _ = io.WriteString(bw, s); _ = bw.Flush() }
	}
	return func(s string) { _, _ = io.WriteString(w, s) }
}

// A compressed stream that does not say where its text ends for now is not
// held back for ever.
func TestUnflushedAnswer(t *testing.T) {
	g := newGuard(t, waf.Config{})
	body := zip(t, page(1<<20))
	src, w := io.Pipe()
	half := len(body) / 2 // within a block
	go func() { _, _ = io.WriteString(w, body[:half]) }()
	_, res, _ := exchanged(t, g, reply{status: 200, contentType: "text/html", coding: "gzip", body: src, length: -1})
	defer res.Body.Close()
	done := make(chan error, 1)
	go func() { _, err := io.ReadFull(res.Body, make([]byte, half)); done <- err }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("held back although nothing follows")
	}
}

// What is only monitored, ignored or cannot be followed goes on, and the
// record says so.
func TestRestGoesOn(t *testing.T) {
	flat := leakAt(where)
	bomb := zip(t, page(600<<10)+strings.Repeat("a", 40<<20)+leak)
	broken := zip(t, page(4<<20))
	broken = broken[:len(broken)-30_000] + strings.Repeat("\xff", 30_000)
	for _, c := range []struct {
		name, coding, body string
		guard              merlon.Guard
		verdict            string // the last one
	}{
		{"monitored", "", flat, merlon.Monitor(newGuard(t, waf.Config{})), "deny response-leak true 951230"},
		{"ignored", "", flat, newGuard(t, waf.Config{IgnoreResponses: true}), "allow clean false "},
		{"no leak", "", page(1 << 20), newGuard(t, waf.Config{}), "allow response-clean false "},
		{"a bomb", "gzip", bomb, newGuard(t, waf.Config{}), "allow response-clean false inspected"},
		{"not gzip to its end", "gzip", broken, newGuard(t, waf.Config{}), "allow response-clean false inspected"},
		{"cut off", "gzip", broken[:len(broken)-40_000], newGuard(t, waf.Config{}), "allow response-clean false inspected"},
		{"another engine", "", page(600 << 10), newGuard(t, waf.Config{Engine: "coraza"}), "allow response-clean false inspected"},
		{"an own rule", "", flat, newGuard(t, waf.Config{Exclude: []waf.Exclude{{Rule: waf.RuleIDs{951230}}}}), "allow response-clean false "},
	} {
		if raced && c.name != "monitored" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			_, res, r := exchanged(t, c.guard, reply{status: 200, contentType: "text/html", coding: c.coding, body: strings.NewReader(c.body), length: int64(len(c.body))})
			got, err := io.ReadAll(res.Body)
			if err != nil || string(got) != c.body {
				t.Errorf("%d bytes of %d arrived, err %v", len(got), len(c.body), err)
			}
			v := r.Verdicts()[len(r.Verdicts())-1]
			rule := ""
			if len(v.Decision.Findings) > 0 {
				rule = v.Decision.Findings[0].Rule
			}
			if got := fmt.Sprint(v.Decision.Effect, " ", v.Decision.Reason, " ", v.Decision.Monitored, " ", rule); got != c.verdict {
				t.Errorf("recorded %s: %+v", got, v.Decision.Findings)
			}
			_ = res.Body.Close()
		})
	}
}

// Patterns that mean the beginning of a line do not match where a window
// happens to begin.
func TestRestKeepsLines(t *testing.T) {
	if raced {
		t.Skip("takes long")
	}
	g := newGuard(t, waf.Config{})
	text := strings.Repeat("a shell is called by #!/bin/sh, as is known. ", 30_000)
	_, res, r := exchanged(t, g, reply{status: 200, contentType: "text/plain", body: cut(text, every(997, len(text))...), length: int64(len(text))})
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != int64(len(text)) {
		t.Errorf("%d bytes, %v: %+v", n, err, r.Verdicts())
	}
	text = page(600<<10) + "\n#!/bin/sh\n" + page(600<<10)
	_, res, _ = exchanged(t, g, reply{status: 200, contentType: "text/plain", body: strings.NewReader(text), length: int64(len(text))})
	if _, err := io.Copy(io.Discard, res.Body); !lateLeak(err) {
		t.Errorf("a script passed: %v", err)
	}
}

// What is read after the request has been forgotten is not judged by what may
// be another's by then.
func TestRestAfterDone(t *testing.T) {
	g := newGuard(t, waf.Config{})
	_, res, r := exchanged(t, g, reply{status: 200, contentType: "text/html", body: strings.NewReader(page(1 << 20)), length: 1 << 20})
	g.Done(r, merlon.Outcome{})
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Errorf("%d bytes", n)
	}
}

func BenchmarkRest(b *testing.B) {
	g := newGuard(b, waf.Config{})
	text := page(8 << 20)
	for _, size := range []int{32 << 10, 4 << 10, 1 << 10, 100} {
		b.Run(fmt.Sprint("pieces of ", size), func(b *testing.B) {
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			var body io.Reader
			for b.Loop() {
				if body == nil {
					_, res, _ := exchanged(b, g, reply{status: 200, contentType: "text/html", body: strings.NewReader(text), length: int64(len(text))})
					if _, err := io.CopyN(io.Discard, res.Body, 512<<10); err != nil {
						b.Fatal(err)
					}
					body = res.Body
				}
				if _, err := body.Read(buf); err != nil {
					body = nil
				}
			}
		})
	}
}
