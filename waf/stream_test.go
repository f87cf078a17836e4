package waf_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/waf"
)

// A stretch is n bytes of nothing in particular, made as they are read.
type stretch struct{ n, at int64 }

func (s *stretch) Read(p []byte) (int, error) {
	if s.at == s.n {
		return 0, io.EOF
	}
	n := min(int64(len(p)), s.n-s.at)
	for i := range p[:n] {
		p[i] = byte((s.at + int64(i)) * 31 >> 3)
	}
	s.at += n
	return int(n), nil
}

// bigFile is a file part of n bytes.
func bigFile(name string, n int64) io.Reader {
	head := file(name, name+".bin", "")
	head = strings.TrimSuffix(head, "\r\n")
	return io.MultiReader(strings.NewReader(head), &stretch{n: n}, strings.NewReader("\r\n"))
}

func text(s string) io.Reader { return strings.NewReader(s) }

// upload asks a guard about a body that streams, and reads on as the upstream
// would. It returns what the upstream got.
type upload struct {
	decision merlon.Decision
	late     *merlon.LateRefusal
	err      error
	n        int64
	sum      [32]byte
	tail     []byte
	verdicts []merlon.Verdict
}

func send(t *testing.T, g merlon.Guard, contentType string, length int64, parts ...io.Reader) upload {
	t.Helper()
	r := merlontest.Request(t, typed(contentType))
	r.Request.Body = io.NopCloser(io.MultiReader(parts...))
	r.Request.ContentLength = length
	gate := merlon.NewGate(g)
	u := upload{decision: gate.Check(r)}
	if u.decision.Passed() {
		h := sha256.New()
		buf := make([]byte, 16<<10)
		for {
			n, err := r.Body.Read(buf)
			h.Write(buf[:n])
			u.n += int64(n)
			u.tail = append(u.tail, buf[:n]...)
			u.tail = u.tail[max(0, len(u.tail)-4096):]
			if err != nil {
				u.err = err
				break
			}
		}
		u.sum = [32]byte(h.Sum(nil))
		u.late, _ = errors.AsType[*merlon.LateRefusal](u.err)
	}
	gate.Done(r, merlon.Outcome{})
	u.verdicts = r.Verdicts()
	return u
}

func sumOf(t *testing.T, parts ...io.Reader) (sum [32]byte, n int64) {
	t.Helper()
	h := sha256.New()
	n, err := io.Copy(h, io.MultiReader(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil)), n
}

const big = 64 << 20

func TestStreaming(t *testing.T) {
	g := newGuard(t, waf.Config{})
	attack := field("comment", "<script>alert(1)</script>")
	for _, c := range []struct {
		name string
		body func() []io.Reader
		want merlon.Reason // of the late refusal; empty if it must pass
	}{
		{"benign fields around a big file", func() []io.Reader {
			return []io.Reader{text(field("a", "1")), bigFile("f", big), text(field("b", "a cat") + endOfForm)}
		}, ""},
		{"attack after a big file", func() []io.Reader {
			return []io.Reader{bigFile("f", big), text(attack + endOfForm)}
		}, waf.Attack},
		{"attack between two big files", func() []io.Reader {
			return []io.Reader{bigFile("f", 3<<20), text(attack), bigFile("g", 3<<20), text(endOfForm)}
		}, waf.Attack},
		{"attack in pieces that only together reach the threshold", func() []io.Reader {
			return []io.Reader{bigFile("f", 3<<20), text(field("x", "ok") + field("y", "' OR '1'='1") + endOfForm)}
		}, waf.Attack},
		{"attack in a file name", func() []io.Reader {
			return []io.Reader{bigFile("f", 3<<20), text(file("g", "../../../etc/passwd", "x")), text(endOfForm)}
		}, waf.Attack},
		{"script by its file name, before a big file", func() []io.Reader {
			return []io.Reader{bigFile("f", 3<<20), text(strings.TrimSuffix(file("g", "shell.php", ""), "\r\n")), &stretch{n: 3 << 20}, text("\r\n" + endOfForm)}
		}, waf.Attack},
		{"field that is too long", func() []io.Reader {
			return []io.Reader{bigFile("f", 3<<20), text(field("a", strings.Repeat("a ", 600<<10)) + endOfForm)}
		}, waf.TooLarge},
		{"many fields that are too long together", func() []io.Reader {
			return []io.Reader{bigFile("f", 3<<20), text(strings.Repeat(field("a", strings.Repeat("a ", 5000)), 120) + endOfForm)}
		}, waf.TooLarge},
		{"no end", func() []io.Reader { return []io.Reader{bigFile("f", 3<<20), text(field("a", "1"))} }, waf.Malformed},
		{"text after the end", func() []io.Reader {
			return []io.Reader{bigFile("f", 3<<20), text(endOfForm + "a=<script>alert(1)</script>")}
		}, waf.Malformed},
		{"bare line ends", func() []io.Reader {
			return []io.Reader{bigFile("f", 3<<20), text(strings.ReplaceAll(attack+endOfForm, "\r\n", "\n"))}
		}, waf.Malformed},
		{"a field hidden behind a bare line end in a file", func() []io.Reader {
			return []io.Reader{text(file("f", "f.bin", "x\n"+strings.TrimSuffix(attack, "\r\n"))), bigFile("g", 3<<20), text(endOfForm)}
		}, waf.Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, length := sumOf(t, c.body()...)
			u := send(t, g, formType, length, c.body()...)
			if !u.decision.Passed() && c.want == u.decision.Reason {
				return // already seen in the head
			}
			if bytes.Contains(u.tail, []byte("<script>")) || bytes.Contains(u.tail, []byte("passwd")) || bytes.Contains(u.tail, []byte("OR '1'")) || bytes.Contains(u.tail, []byte("shell.php")) {
				t.Errorf("part of the attack reached the upstream: %q", u.tail[max(0, len(u.tail)-200):])
			}
			if c.want == "" {
				if u.err != io.EOF || u.sum != want {
					t.Errorf("%d bytes of %d arrived, err %v: not the same bytes", u.n, length, u.err)
				}
				last := u.verdicts[len(u.verdicts)-1].Decision
				if len(last.Findings) != 1 || last.Findings[0].Value != fmt.Sprintf("6 of %d bytes", length) {
					t.Errorf("the event does not say how much was seen: %+v", last.Findings)
				}
				return
			}
			if u.late == nil || u.late.Decision.Reason != c.want {
				t.Fatalf("not refused: %v, err %v", u.decision.Reason, u.err)
			}

			// Only monitored, the same bytes arrive, and the verdict is recorded.
			m := send(t, merlon.Monitor(g), formType, length, c.body()...)
			if m.err != io.EOF || m.sum != want {
				t.Errorf("monitored: %d bytes of %d arrived, err %v", m.n, length, m.err)
			}
			last := m.verdicts[len(m.verdicts)-1].Decision
			if last.Reason != c.want || !last.Monitored {
				t.Errorf("monitored: recorded %+v", last)
			}
		})
	}
}

// Uploads of any length cost little memory: opaque ones are not held at all.
func TestUploadMemory(t *testing.T) {
	if raced {
		t.Skip("memory is not measured with the race detector on")
	}
	g := newGuard(t, waf.Config{})
	for _, c := range []struct {
		name, contentType string
		parts             func() []io.Reader
	}{
		{"octets", "application/octet-stream", func() []io.Reader { return []io.Reader{&stretch{n: 512 << 20}} }},
		{"multipart", formType, func() []io.Reader {
			return []io.Reader{text(field("a", "1")), bigFile("f", 256<<20), text(field("b", "2")), bigFile("g", 64<<20), text(endOfForm)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			r := merlontest.Request(t, typed(c.contentType))
			r.Request.Body = io.NopCloser(io.MultiReader(c.parts()...))
			r.Request.ContentLength = -1
			gate := merlon.NewGate(g)
			if d := gate.Check(r); !d.Passed() {
				t.Fatal(d.Reason, d.Err)
			}
			if _, err := io.CopyN(io.Discard, r.Body, 32<<20); err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			runtime.ReadMemStats(&before)
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
				t.Errorf("%d MiB were allocated on the way", grown>>20)
			}
			gate.Done(r, merlon.Outcome{})
		})
	}
}

// A client that sends nothing more does not make the guard wait: what is
// opaque is not touched before the upstream reads it.
func TestOpaqueIsNotTouched(t *testing.T) {
	g := newGuard(t, waf.Config{})
	r := merlontest.Request(t, typed("application/grpc"))
	r.Request.Body = io.NopCloser(failing{t})
	r.Request.ContentLength = -1
	if d := g.Check(r); !d.Passed() || d.Findings[0].Rule != "inspected" {
		t.Errorf("%+v", d)
	}
	g.Done(r, merlon.Outcome{Status: http.StatusOK})
}

type failing struct{ t *testing.T }

func (f failing) Read([]byte) (int, error) { f.t.Error("the body was read"); return 0, io.EOF }
