package waf_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/waf"
)

const leak = "<html><body>You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near ''' at line 1</body></html>"

type reply struct {
	status      int
	contentType string
	coding      string
	body        io.Reader
	length      int64
}

// answer takes a request through a gate and back with an answer.
func answer(t *testing.T, g merlon.Guard, a reply) (merlon.Decision, *http.Response) {
	t.Helper()
	d, res, _ := exchanged(t, g, a)
	return d, res
}

// exchanged is answer, and what the gate has recorded.
func exchanged(t testing.TB, g merlon.Guard, a reply) (merlon.Decision, *http.Response, *merlon.Request) {
	t.Helper()
	r := merlontest.Request(t, "GET /\n"+browser)
	gate := merlon.NewGate(g)
	if d := gate.Check(r); !d.Passed() {
		t.Fatal(d.Reason)
	}
	t.Cleanup(func() { gate.Done(r, merlon.Outcome{}) })
	res := &http.Response{StatusCode: a.status, Proto: "HTTP/1.1", Header: http.Header{}, Body: io.NopCloser(a.body), ContentLength: a.length, Request: r.Request}
	res.Header.Set("Content-Type", a.contentType)
	if a.coding != "" {
		res.Header.Set("Content-Encoding", a.coding)
	}
	return gate.CheckResponse(r, res), res, r
}

func TestResponses(t *testing.T) {
	g := newGuard(t, waf.Config{})
	long := strings.Repeat("<p>nothing to see</p>\n", 60_000)
	for _, c := range []struct {
		name, contentType, coding, body string
		status                          int
		leak                            bool
	}{
		{name: "a page", contentType: "text/html; charset=utf-8", body: "<h1>Welcome</h1>"},
		{name: "a database error", contentType: "text/html", body: leak, leak: true},
		{name: "a database error, 500", contentType: "TEXT/HTML ; charset=utf-8", status: 500, body: leak, leak: true},
		{name: "a database error as text", contentType: "text/plain", body: leak, leak: true},
		{name: "compressed", contentType: "text/html", coding: "gzip", body: zip(t, leak), leak: true},
		{name: "compressed with br", contentType: "text/html", coding: "br", body: brotlied(t, leak), leak: true},
		{name: "compressed, clean", contentType: "text/html", coding: "gzip", body: zip(t, "<h1>Welcome</h1>")},
		{name: "compressed otherwise", contentType: "text/html", coding: "zstd", body: leak},
		{name: "a lie about compression", contentType: "text/html", coding: "gzip", body: leak, leak: true},
		{name: "other types", contentType: "application/javascript", body: leak},
		{name: "events", contentType: "text/event-stream", body: leak},
		{name: "a long page", contentType: "text/html", body: long},
		{name: "a leak at the start of a long page", contentType: "text/html", body: leak + long, leak: true},
		{name: "empty", contentType: "text/html", body: ""},
	} {
		if raced && len(c.body) > 100<<10 {
			continue // takes very long
		}
		for _, known := range []bool{true, false} {
			t.Run(c.name+map[bool]string{true: "", false: ", chunked"}[known], func(t *testing.T) {
				a := reply{status: max(c.status, 200), contentType: c.contentType, coding: c.coding, body: strings.NewReader(c.body), length: -1}
				if c.status == 0 {
					a.status = 200
				}
				if known {
					a.length = int64(len(c.body))
				}
				d, res := answer(t, g, a)
				if c.leak {
					if d.Passed() || d.Reason != waf.ResponseLeak || d.Code() != http.StatusBadGateway || d.Findings[0].Part != "answer" {
						t.Errorf("%s %q %d %+v", d.Effect, d.Reason, d.Code(), d.Findings)
					}
				} else if !d.Passed() {
					t.Errorf("%q %+v", d.Reason, d.Findings)
				}
				got, err := io.ReadAll(res.Body)
				if err != nil || string(got) != c.body {
					t.Errorf("%d bytes of %d are left, err %v", len(got), len(c.body), err)
				}
				if err := res.Body.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestResponseRemedy(t *testing.T) {
	a := reply{status: 200, contentType: "text/html", body: strings.NewReader(leak), length: int64(len(leak))}
	d, _ := answer(t, newGuard(t, waf.Config{}), a)
	mended := newGuard(t, apply(t, d.Remedy))
	a.body = strings.NewReader(leak)
	if d, _ := answer(t, mended, a); !d.Passed() {
		t.Errorf("still refused: %+v", d.Findings)
	}
	a.body = strings.NewReader("<?php phpinfo(); eval($_POST['x']); ?>")
	a.length = -1
	if d, _ := answer(t, newGuard(t, waf.Config{IgnoreResponses: true}), a); !d.Passed() {
		t.Errorf("refused, although answers are ignored: %+v", d.Findings)
	}
}

// What trickles is a stream: it is passed on before its end.
func TestTricklingResponse(t *testing.T) {
	g := newGuard(t, waf.Config{})
	src, w := io.Pipe()
	go func() { _, _ = w.Write([]byte("first line\n")) }() // then nothing
	start := time.Now()
	d, res := answer(t, g, reply{status: 200, contentType: "text/plain", body: src, length: -1})
	if took := time.Since(start); !d.Passed() || took > 4*time.Second {
		t.Errorf("%q after %s", d.Reason, took)
	}
	line := make([]byte, 11)
	if _, err := io.ReadFull(res.Body, line); err != nil || !bytes.Equal(line, []byte("first line\n")) {
		t.Errorf("%q %v", line, err)
	}
	done := make(chan error)
	go func() { _, err := res.Body.Read(line); done <- err }()
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		if err == nil {
			t.Error("a read went on after Close")
		}
	case <-time.After(5 * time.Second):
		t.Error("a read hangs after Close")
	}
}

// Nothing is remembered of a request after Done, whatever was decided.
func TestNothingIsKept(t *testing.T) {
	g := newGuard(t, waf.Config{})
	for _, wire := range []string{"GET /\n" + browser, get("<script>alert(1)</script>"), post("application/x-php", "x")} {
		r := merlontest.Request(t, wire)
		g.Check(r)
		g.Done(r, merlon.Outcome{})
		g.Done(r, merlon.Outcome{})
		if d := g.CheckResponse(r, &http.Response{StatusCode: 200, Header: http.Header{}}); d.Reason != "" {
			t.Errorf("%q: answered %q after Done", wire, d.Reason)
		}
	}
}
