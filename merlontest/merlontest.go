// Package merlontest holds a guard to the contract that every guard keeps, and
// runs tables whose rows are requests as they stand on the wire.
//
// It judges guards only by their answers; what a guard's state does over time
// is for the guard's own tests.
package merlontest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/merlon-dev/merlon"
)

// A Case is one request and what a guard must answer.
type Case struct {
	Name string
	// Request is wire text. Line ends may be plain newlines; the Host and
	// Content-Length fields are added where they are missing, and so is
	// " HTTP/1.1" after the target. A body follows an empty line.
	Request string
	// Client is the client's address; 192.0.2.1 if empty.
	Client string
	// Prepare sets fields of the Request that the gateway or another guard would.
	Prepare func(*merlon.Request)

	Want   merlon.Reason
	Status int // of a refusal; 0 means that the request must pass
}

// Options say which parts of the contract a guard cannot keep.
type Options struct {
	// Stateful guards may answer differently when asked again, such as
	// rate limits.
	Stateful bool
}

// Run asks a guard from newGuard each case's question and compares, then
// holds it to the contract: asked twice it answers the same, asked from many
// goroutines too, and every request's body is left whole for the upstream.
func Run(t *testing.T, newGuard func(*testing.T) merlon.Guard, o Options, cases []Case) {
	t.Helper()
	shared := newGuard(t)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			g := shared
			if o.Stateful {
				g = newGuard(t)
			}
			r := c.request(t)
			d := ask(t, g, r)
			c.judge(t, d)
			c.bodyLeftWhole(t, r, d)
			if o.Stateful {
				return
			}
			again := ask(t, g, c.request(t))
			if !same(d, again) {
				t.Errorf("asked again: %s, first: %s", show(again), show(d))
			}
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if d2 := ask(t, g, c.request(t)); !same(d, d2) {
						t.Errorf("asked from another goroutine: %s, first: %s", show(d2), show(d))
					}
				})
			}
			wg.Wait()
		})
	}
	t.Run("every Check has one Done", func(t *testing.T) { oneDone(t, newGuard(t), cases) })
}

// Request parses wire text as [Case] describes it.
func Request(t testing.TB, wire string) *merlon.Request {
	t.Helper()
	head, body, _ := strings.Cut(strings.ReplaceAll(wire, "\r\n", "\n"), "\n\n")
	lines := strings.Split(strings.TrimRight(head, "\n"), "\n")
	if f := strings.Fields(lines[0]); len(f) == 2 {
		lines[0] += " HTTP/1.1"
	}
	var b bytes.Buffer
	b.WriteString(lines[0] + "\r\n")
	has := func(name string) bool {
		for _, l := range lines[1:] {
			if k, _, _ := strings.Cut(l, ":"); strings.EqualFold(k, name) {
				return true
			}
		}
		return false
	}
	for _, l := range lines[1:] {
		b.WriteString(l + "\r\n")
	}
	if !has("Host") {
		b.WriteString("Host: shop.example.com\r\n")
	}
	if body != "" && !has("Content-Length") && !has("Transfer-Encoding") {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	hr, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		t.Fatalf("the test's request cannot be parsed: %v", err)
	}
	hr.RemoteAddr = "192.0.2.1:40000"
	return merlon.NewRequest(hr)
}

func (c Case) request(t testing.TB) *merlon.Request {
	t.Helper()
	r := Request(t, c.Request)
	r.ID = "TEST"
	r.Site = r.Host
	if c.Client != "" {
		r.Client = netip.MustParseAddr(c.Client)
	}
	if c.Prepare != nil {
		c.Prepare(r)
	}
	return r
}

func (c Case) judge(t *testing.T, d merlon.Decision) {
	t.Helper()
	if d.Reason != c.Want {
		t.Errorf("reason %q, want %q (%s)", d.Reason, c.Want, show(d))
	}
	switch {
	case c.Status == 0 && !d.Passed():
		t.Errorf("was refused: %s", show(d))
	case c.Status != 0 && d.Passed():
		t.Errorf("passed: %s", show(d))
	case c.Status != 0 && d.Code() != c.Status:
		t.Errorf("status %d, want %d", d.Code(), c.Status)
	}
}

// bodyLeftWhole reads what the upstream would. A guard that streams may
// refuse there, but what it delivers must be the client's bytes.
func (c Case) bodyLeftWhole(t *testing.T, r *merlon.Request, d merlon.Decision) {
	t.Helper()
	want, err := io.ReadAll(c.request(t).Request.Body)
	if err != nil {
		return // the row's body is broken on purpose
	}
	got, err := io.ReadAll(r.Request.Body)
	if late, ok := errors.AsType[*merlon.LateRefusal](err); ok {
		if !bytes.HasPrefix(want, got) {
			t.Errorf("streamed bytes that the client did not send")
		}
		t.Logf("refused while streaming: %s", late.Decision.Reason)
		return
	}
	if d.Passed() && (err != nil || !bytes.Equal(got, want)) {
		t.Errorf("the body was not left whole: %d bytes of %d, err %v", len(got), len(want), err)
	}
}

// ask asks through a Gate, as the gateway does.
func ask(t testing.TB, g merlon.Guard, r *merlon.Request) merlon.Decision {
	t.Helper()
	gate := merlon.NewGate(g)
	d := gate.Check(r)
	gate.Done(r, merlon.Outcome{Status: http.StatusOK})
	return d
}

func oneDone(t *testing.T, g merlon.Guard, cases []Case) {
	counter := &counter{Guard: g}
	for _, c := range cases {
		gate := merlon.NewGate(counter)
		r := c.request(t)
		gate.Check(r)
		gate.Done(r, merlon.Outcome{})
		gate.Done(r, merlon.Outcome{})
	}
	if counter.checks != counter.dones {
		t.Errorf("%d Checks, %d Dones", counter.checks, counter.dones)
	}
}

type counter struct {
	merlon.Guard
	checks, dones int
}

func (c *counter) Check(r *merlon.Request) merlon.Decision { c.checks++; return c.Guard.Check(r) }

func (c *counter) Done(r *merlon.Request, o merlon.Outcome) {
	c.dones++
	if f, ok := c.Guard.(merlon.Finisher); ok {
		f.Done(r, o)
	}
}

func same(a, b merlon.Decision) bool {
	return a.Effect == b.Effect && a.Reason == b.Reason && a.Code() == b.Code() &&
		a.Remedy == b.Remedy && reflect.DeepEqual(a.Header, b.Header) && reflect.DeepEqual(a.Findings, b.Findings)
}

func show(d merlon.Decision) string {
	return fmt.Sprintf("%s %q %d err=%v findings=%+v", d.Effect, d.Reason, d.Code(), d.Err, d.Findings)
}
