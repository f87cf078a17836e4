package gateway_test

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/decoy"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/record"
	"github.com/merlon-dev/merlon/stuffing"
	"github.com/merlon-dev/merlon/test/corpus"
	"github.com/merlon-dev/merlon/throttle"
)

// A tapedGate is a gateway that records.
type tapedGate struct {
	*gateway.Gateway
	tapes *record.Recorder
	dir   string
	ids   []record.Identity
}

func openTaped(t *testing.T, f *config.File) *tapedGate {
	t.Helper()
	g := &tapedGate{dir: filepath.Join(f.Data, "traffic")}
	key := filepath.Join(f.Data, "key")
	to, err := record.MakeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if g.ids, err = record.ReadIdentity(key); err != nil {
		t.Fatal(err)
	}
	if g.tapes, err = record.Open(record.Config{Dir: g.dir, Recipient: to}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if g.Gateway, err = gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler), Tapes: g.tapes}); err != nil {
		t.Fatal(f.Explain(err))
	}
	return g
}

func (g *tapedGate) entries(t *testing.T) (all []record.Entry) {
	t.Helper()
	if err := g.tapes.Close(); err != nil {
		t.Fatal(err)
	}
	for e, err := range record.Read(g.dir, time.Time{}, g.ids...) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func newReplay(t *testing.T, text string) *gateway.Gateway {
	t.Helper()
	f := read(t, text, "http://127.0.0.1:1") // nobody is asked there
	g, err := gateway.NewReplay(f)
	if err != nil {
		t.Fatal(f.Explain(err))
	}
	return g
}

// What is recorded and then judged by the same configuration fares the same.
// Only of what was refused for a secret, or with a body that is not recorded,
// nothing is said.
func TestReplayAgreesWithWhatHappened(t *testing.T) {
	const busy = shop + "limit: {rate: off}\n"
	g := openTaped(t, read(t, busy, newBackend(t, "app")))
	requests, err := corpus.CRS()
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for i, c := range requests {
		if i%30 != 0 {
			continue
		}
		hr, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(c.Wire())))
		if err != nil {
			continue // the listener refuses it
		}
		hr.RemoteAddr, hr.Host = "192.0.2.7:4711", "shop.example.com"
		g.ServeHTTP(httptest.NewRecorder(), hr)
		sent++
	}
	all := g.entries(t)
	if len(all) != sent || sent < 100 {
		t.Fatalf("%d sent, %d recorded", sent, len(all))
	}
	again := newReplay(t, busy)
	refused, compared := 0, 0
	for _, e := range all {
		hr, err := e.Request()
		if err != nil {
			t.Errorf("%s: %v", e.Target, err)
			continue
		}
		if gateway.OfTheMoment(e.Outcome.Reason) {
			continue
		}
		r, d := again.Judge(hr)
		now := ""
		if !d.Passed() {
			now = r.RefusedBy()
		}
		if e.Outcome.Guard != "" {
			refused++
			if e.Outcome.Hidden || !e.Whole {
				continue
			}
		}
		compared++
		if now != e.Outcome.Guard || now != "" && d.Reason != e.Outcome.Reason {
			t.Errorf("%s %q %q: then %+v, now %q %s %v", e.Method, e.Target, e.Body, e.Outcome, now, d.Reason, d.Findings)
		}
	}
	t.Logf("%d requests, %d refused, %d compared", len(all), refused, compared)
	if refused < 20 || compared < sent/2 {
		t.Errorf("of %d requests %d were refused and %d compared", sent, refused, compared)
	}
}

func TestAnAnswerThatIsRefusedIsNotTheRequestsFault(t *testing.T) {
	leak := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<p>You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version</p>")
	}))
	defer leak.Close()
	g := openTaped(t, read(t, shop, leak.URL))
	hr := httptest.NewRequest("GET", "/", nil)
	hr.Host = "shop.example.com"
	hr.Header.Set("User-Agent", "test/1.0")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, hr)
	if e := g.entries(t)[0]; w.Code == 200 || e.Outcome.Guard != "" || e.Outcome.Status != w.Code {
		t.Errorf("%d: %+v", w.Code, e.Outcome)
	}
}

func TestABackendThatFailsIsNotTheRequestsFault(t *testing.T) {
	g := openTaped(t, read(t, shop, "http://127.0.0.1:1"))
	hr := httptest.NewRequest("GET", "/", nil)
	hr.Host = "shop.example.com"
	hr.Header.Set("User-Agent", "test/1.0")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, hr)
	if e := g.entries(t)[0]; w.Code != 502 || e.Outcome.Guard != "" || e.Outcome.Status != 502 {
		t.Errorf("%d: %+v", w.Code, e.Outcome)
	}
}

func TestJudgeAsksNoUpstreamAndReadsBodiesToTheirEnd(t *testing.T) {
	asked := false
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer backend.Close()
	g, err := gateway.NewReplay(read(t, shop+"off: [waf]\nlimit: {body: 1KiB}\n", backend.URL))
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]merlon.Reason{1000: "", 1025: limit.BodyTooLarge} {
		hr := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(strings.Repeat("a", n)))) // of unknown length
		hr.Host = "shop.example.com"
		r, d := g.Judge(hr)
		if got := d.Passed(); got != (want == "") || !got && (d.Reason != want || r.RefusedBy() != "limit") || r.Site != "shop.example.com" {
			t.Errorf("a body of %d bytes: %+v", n, d)
		}
	}
	if asked {
		t.Error("the upstream was asked")
	}
}

func TestReplayKnowsNoRates(t *testing.T) {
	g := newReplay(t, shop+"limit: {rate: 1/d, burst: 1, concurrent: {client: 1, route: 1}, body: 1KiB}\n")
	judge := func(length int64) merlon.Reason {
		hr := httptest.NewRequest("GET", "/", nil)
		hr.Host, hr.ContentLength = "shop.example.com", length
		hr.Header.Set("User-Agent", "test/1.0")
		if _, d := g.Judge(hr); !d.Passed() {
			return d.Reason
		}
		return ""
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if got := judge(0); got != "" {
					t.Errorf("refused: %s", got)
				}
			}
		})
	}
	wg.Wait()
	if got := judge(2000); got != limit.BodyTooLarge {
		t.Errorf("a long body: %q", got)
	}
	// The settings are checked all the same.
	f := read(t, shop+"limit: {burst: -1}\n", "http://127.0.0.1:1")
	if _, err := gateway.NewReplay(f); err == nil || !strings.Contains(err.Error(), "limit.burst") {
		t.Errorf("a wrong setting: %v", err)
	}
}

func TestWhatDependsOnTheMoment(t *testing.T) {
	for reason, want := range map[merlon.Reason]bool{
		limit.RateExceeded: true, limit.ClientBusy: true, limit.RouteBusy: true, limit.QuotaExceeded: true, ban.Banned: true, challenge.WorkRequired: true,
		stuffing.LoginRefused: true, throttle.ClassFull: true, merlon.MemoryFull: true, decoy.DecoyTouched: false, gateway.LedgerFull: true, merlon.GuardFailed: true,
		limit.BodyTooLarge: false, gateway.NoSite: false, "attack": false, "": false,
	} {
		if gateway.OfTheMoment(reason) != want {
			t.Errorf("%s", reason)
		}
	}
}

func TestRecordingCannotBeChangedByAReload(t *testing.T) {
	f := read(t, shop, newBackend(t, "app"))
	f.Listen = config.Listen{InsecureHTTP: "127.0.0.1:0"}
	s, err := gateway.NewServer(t.Context(), f, slog.New(slog.DiscardHandler), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown(t.Context()) }()
	to, err := record.MakeKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	next := *f
	next.Record = record.Config{Dir: t.TempDir(), Recipient: to}
	if err := s.Reload(&next); err == nil || !strings.Contains(err.Error(), "record: cannot be changed by a reload") {
		t.Errorf("%v", err)
	}
	if err := s.Reload(f); err != nil {
		t.Error(err)
	}
}
