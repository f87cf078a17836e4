package password_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/password"
)

const lost = "purple ferrets annoy the lazy mongoose"

func TestRangeAPI(t *testing.T) {
	sum := fmt.Sprintf("%X", password.Sum(lost))
	good := "0018A45C4D1DEF81644B54AB7F969B88D65:1\r\n" + sum[5:] + ":3\r\n00D4F6E8FA6EECAD2A3AA415EEC418D38EC:0\r\n"
	var asked atomic.Int64
	var answer atomic.Value // func(w http.ResponseWriter)
	end := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if len(r.URL.Path) != len("/range/")+5 || r.URL.RawQuery != "" || r.ContentLength > 0 {
			t.Errorf("more than a prefix was sent: %s", r.URL)
		}
		if r.Header.Get("Add-Padding") != "true" || r.Header.Get("Cookie") != "" {
			t.Errorf("fields %v", r.Header)
		}
		answer.Load().(func(http.ResponseWriter))(w)
	}))
	defer s.Close()
	defer close(end)
	text := func(body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { _, _ = io.WriteString(w, body) }
	}
	for _, c := range []struct {
		name   string
		answer func(http.ResponseWriter)
		want   string
		err    string
		within time.Duration
	}{
		{"it is on the list", text(good), "breached", "", within},
		{"it is not", text(strings.ReplaceAll(good, sum[5:], strings.Repeat("A", 35))), "", "", within},
		{"it is padding", text(strings.ReplaceAll(good, ":3", ":0")), "", "", within},
		{"in small letters", text(strings.ToLower(good)), "breached", "", within},
		{"nothing", text(""), "", "", within},
		{"an error", func(w http.ResponseWriter) { http.Error(w, sum, http.StatusServiceUnavailable) }, "", "answered 503", within},
		{"a redirect", func(w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusFound)
		}, "", "answered 302", within},
		{"a page", text("<html>" + sum), "", "answered something else", within},
		{"no end", func(w http.ResponseWriter) {
			for range 1 << 16 {
				_, _ = io.WriteString(w, strings.Repeat("A", 35)+":1\n")
			}
		}, "", "answered more than 1MiB", within},
		{"a line without end", text(strings.Repeat("A", 1<<19)), "", "answered something else", within},
		{"silence", func(http.ResponseWriter) { <-end }, "", "deadline exceeded", 100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer.Store(c.answer)
			p := newPolicy(t, password.Config{RangeAPI: s.URL + "/range/", RangeTimeout: c.within})
			problems, err := p.Check(t.Context(), lost, nil, false)
			if rules(problems) != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, %v", problems, err)
			}
			if err != nil && (strings.Contains(err.Error(), sum[:5]) || strings.Contains(err.Error(), lost)) {
				t.Errorf("the error tells of the password: %v", err)
			}
		})
	}
	t.Run("what is refused anyway is not asked about", func(t *testing.T) {
		before := asked.Load()
		p := newPolicy(t, password.Config{RangeAPI: s.URL + "/range"})
		if problems, err := p.Check(t.Context(), "password", nil, false); len(problems) == 0 || err != nil || asked.Load() != before {
			t.Errorf("%v, %v, asked %d times", problems, err, asked.Load()-before)
		}
	})
}

func TestRangeAPIThatHasFailedIsLeftAlone(t *testing.T) {
	var asked, fail atomic.Int64
	fail.Store(1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if fail.Load() > 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "filter")
	build(t, file, 1, fullLines(lost))
	p := newPolicy(t, password.Config{RangeAPI: s.URL, Breached: file})
	now := time.Unix(1e9, 0)
	p.SetNow(func() time.Time { return now })
	check := func(text, want, wantErr string, wantAsked int64) {
		t.Helper()
		problems, err := p.Check(t.Context(), text, nil, false)
		if rules(problems) != want || (err != nil) != (wantErr != "") || err != nil && !strings.Contains(err.Error(), wantErr) || asked.Load() != wantAsked {
			t.Errorf("%v, %v, asked %d times", problems, err, asked.Load())
		}
	}
	check(lost, "breached", "", 0) // the file knows it: nobody has to be asked
	check(lost+"!", "", "answered 500", 1)
	check(lost+"!", "", "not asked for 30 seconds", 1)
	check(lost, "breached", "", 1)
	fail.Store(0)
	now = now.Add(31 * time.Second)
	check(lost+"!", "", "", 2)
	check(lost+"?", "", "", 3)
	s.Close()
	check(lost+"+", "", "connection refused", 3)
}
