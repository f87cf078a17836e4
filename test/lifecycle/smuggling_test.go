package lifecycle_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

// A raw request, and what must become of it.
type raw struct {
	name    string
	text    string
	refused bool // or else: refused, or exactly one request at the backend
}

func handWritten() []raw {
	post := "POST /?cb=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
	chunked := "0\r\n\r\n" + smuggled
	length := fmt.Sprintf("Content-Length: %d\r\n", len(chunked))
	return []raw{
		{"both lengths", post + length + "Transfer-Encoding: chunked\r\n\r\n" + chunked, true},
		{"two lengths", post + "Content-Length: 0\r\n" + length + "\r\n" + chunked, true},
		{"two equal lengths in one line", post + "Content-Length: 5, 5\r\n\r\nabcde", true},
		{"signed length", post + "Content-Length: +5\r\n\r\nabcde", true},
		{"unknown coding", post + "Transfer-Encoding: xchunked\r\n" + length + "\r\n" + chunked, true},
		{"space before the colon", post + "Transfer-Encoding : chunked\r\n\r\n" + chunked, true},
		{"folded line", post + "X-A: b\r\n Transfer-Encoding: chunked\r\n" + length + "\r\n" + chunked, true},
		{"bare line feed", post + "X-A: b\nTransfer-Encoding: chunked\r\n\r\n" + chunked, true},
		{"bare carriage return", post + "X-A: b\rTransfer-Encoding: chunked\r\n\r\n" + chunked, true},
		{"chunk extension with a line feed", post + "Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nZ\r\n0\r\n\r\n", true},
		{"chunk size too large", post + "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nZ\r\n0\r\n\r\n", true},
		{"lengths of HTTP/1.0", "POST /?cb=1 HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, true},
		{"two hosts", "GET /?cb=1 HTTP/1.1\r\nHost: localhost\r\nHost: other.example\r\n\r\n", true},
		{"one chunked request", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false},
		{"one request with a length", post + "Content-Length: 3\r\n\r\nabc", false},
	}
}

// corpus are rows of an imported collection of mutations.
func corpus(t *testing.T) []raw {
	t.Helper()
	text, err := os.ReadFile("../../../shared/data/smuggling_raw.jsonl")
	if errors.Is(err, os.ErrNotExist) {
		t.Log("the collection of smuggling requests is not here; only the rows of this file are tried")
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var rows []raw
	for line := range bytes.Lines(text) {
		var row struct {
			Mutation, Type string
			Raw            string `json:"raw_b64"`
		}
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		b, err := base64.StdEncoding.DecodeString(row.Raw)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, raw{name: row.Mutation + " " + row.Type, text: string(b)})
	}
	return rows
}

// seen counts what reaches the backend, by query.
type seen struct {
	mu sync.Mutex
	n  map[string]int
}

func (s *seen) add(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n[key]++
}

func (s *seen) of(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n[key]
}

// No sequence of bytes is one request to Merlon and another, or two, to the
// backend: it is refused and the connection closed, or it is exactly one.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	at := &seen{n: map[string]int{}}
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path != "/" || r.URL.Query().Get("cb") == "" {
			at.add("smuggled")
		}
		at.add(r.URL.Query().Get("cb"))
	})
	// The WAF would refuse some of these for what they say; here only their
	// framing is judged.
	m := harness.Serve(t, harness.Options{}, "--upstream", b.URL, "--off=waf,limit")

	hand := handWritten()
	rows := append(hand, corpus(t)...)
	ids := make([]string, len(rows))
	var wg sync.WaitGroup
	work := make(chan int)
	for range 12 {
		wg.Go(func() {
			for i := range work {
				ids[i] = rows[i].try(t, m, at, fmt.Sprintf("row%d", i))
			}
		})
	}
	for i := range rows {
		work <- i
	}
	close(work)
	wg.Wait()
	if n := at.of("smuggled"); n > 0 {
		t.Errorf("%d requests were smuggled", n)
	}

	verified(t, m)
	recorded, detailed := uint64(0), map[string]bool{}
	for _, e := range events(t, m, "--guard", "origin") {
		recorded += max(1, e.Count)
		detailed[e.ID] = true
	}
	n, missing := uint64(0), 0
	for i, id := range ids {
		if id == "" {
			continue
		}
		n++
		if !detailed[id] {
			missing++
			if recorded < n {
				t.Errorf("%s: refused without an event", rows[i].name)
			}
		}
	}
	t.Logf("%d rows, %d refused, %d of these only counted in the log", len(rows), n, missing)
	if recorded < n {
		t.Errorf("%d refusals, but events of only %d", n, recorded)
	}
}

// try sends the request on a connection of its own and returns the id of its
// refusal, empty if it was passed on.
func (row raw) try(t *testing.T, m *harness.Merlon, at *seen, key string) string {
	c := dialHTTP1(t, m)
	defer c.Close()
	if _, err := io.WriteString(c, strings.Replace(row.text, "cb=1 ", "cb="+key+" ", 1)); err != nil {
		t.Errorf("%s: %v", row.name, err)
		return ""
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	first, id, err := answerOf(c.r)
	if err != nil {
		t.Errorf("%s: no answer: %v", row.name, err)
		return ""
	}
	if first == http.StatusBadRequest || first == http.StatusNotImplemented {
		if n, err := io.Copy(io.Discard, c.r); err != nil || n > 0 {
			t.Errorf("%s: after the refusal there are %d bytes more, %v; want the connection closed", row.name, n, err)
		}
		if n := at.of(key); n != 0 && row.refused {
			t.Errorf("%s: refused, but %d requests reached the backend", row.name, n)
		}
		return id
	}
	_ = c.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	second, id, _ := answerOf(c.r)
	if n := at.of(key); row.refused || first != http.StatusOK || n != 1 || second != 0 && second != http.StatusBadRequest {
		t.Errorf("%s: answered %d and then %d, and %d requests reached the backend", row.name, first, second, n)
	}
	return id
}

// answerOf reads one whole answer; an id only if it is a refusal.
func answerOf(r *bufio.Reader) (status int, id string, err error) {
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, "", err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if res.StatusCode >= 400 {
		id = res.Header.Get("X-Request-Id")
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		err = nil
	}
	return res.StatusCode, id, err
}
