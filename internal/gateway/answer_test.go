package gateway_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/ledger"
)

const sqlError = "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near ''' at line 1"

// leaky answers with a MiB of text that has a database error in it after 600
// KiB, of declared length or not.
func leaky(t *testing.T) string {
	line := "<p>nothing to see in this line</p>\n"
	page := strings.Repeat(line, 600<<10/len(line)) + sqlError + strings.Repeat(line, 424<<10/len(line))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", fmt.Sprint(len(page)))
		}
		_, _ = io.WriteString(w, page)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// An answer that leaks after it has begun breaks off before the leak, which
// the client can tell from an end, and the event explains it.
func TestLateLeak(t *testing.T) {
	for _, c := range []struct {
		name, settings string
		cut            bool
		kind           ledger.Kind
	}{
		{"enforced", "", true, ledger.ResponseRefusal},
		{"monitored", "monitor: [waf]\n", false, ledger.Monitored},
		{"ignored", "waf: {ignore_responses: true}\n", false, ""},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(c.name+" "+proto, func(t *testing.T) {
				gt := open(t, read(t, c.settings+shop, leaky(t)))
				s := httptest.NewUnstartedServer(gt)
				s.EnableHTTP2 = proto == "HTTP/2.0"
				s.StartTLS()
				defer s.Close()
				for _, path := range []string{"/known", "/chunked"} {
					for _, accept := range []string{"identity", "gzip"} {
						got, status, err := fetch(t, s, path, accept)
						if status != 200 || c.cut != (err != nil) || c.cut == strings.Contains(got, sqlError) {
							t.Errorf("%s, %s: %d, %d bytes, err %v", path, accept, status, len(got), err)
						}
						if c.cut && proto == "HTTP/1.1" && !errors.Is(err, io.ErrUnexpectedEOF) {
							t.Errorf("%s, %s: broke off with %v", path, accept, err)
						}
						if c.cut && accept == "identity" && len(got) < 512<<10 {
							t.Errorf("%s: only %d bytes before the leak", path, len(got))
						}
					}
				}
				s.Close()
				told(t, gt.events(t), c.kind)
			})
		}
	}
}

func fetch(t *testing.T, s *httptest.Server, path, accept string) (string, int, error) {
	t.Helper()
	hr, err := http.NewRequest("GET", s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	hr.Host = "shop.example.com"
	hr.Header = http.Header{"User-Agent": {"test/1.0"}, "Accept": {"*/*"}, "Accept-Encoding": {accept}}
	res, err := s.Client().Do(hr)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body io.Reader = res.Body
	if accept == "gzip" {
		if body, err = gzip.NewReader(res.Body); err != nil {
			return "", res.StatusCode, err
		}
	}
	text, err := io.ReadAll(body)
	return string(text), res.StatusCode, err
}

// told checks what the events say of four answers.
func told(t *testing.T, events []ledger.Event, kind ledger.Kind) {
	t.Helper()
	if want := map[bool]int{true: 4, false: 0}[kind != ""]; len(events) != want {
		t.Fatalf("%d events", len(events))
	}
	for _, e := range events {
		if e.Kind != kind || e.Guard != "waf" || e.Reason != "response-leak" || e.Status != 200 || !strings.HasPrefix(e.Remedy, "waf:\n  exclude:\n    - {rule: 951230, target: response}") {
			t.Errorf("%+v", e)
		}
		var b strings.Builder
		if err := ledger.Explain(&b, e, config.ReasonText); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"response-leak", "951230", "answer", "the answer had begun"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%q is not in:\n%s", want, b.String())
			}
		}
	}
}
