package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ledger"
)

func open(t testing.TB, dir string, c ledger.Config) *ledger.Log {
	t.Helper()
	l, err := ledger.Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func closeLog(t testing.TB, l *ledger.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// refusal is the nth refusal, of a client of its own.
func refusal(n int) ledger.Event {
	return ledger.Event{
		Time: time.Now(), ID: fmt.Sprintf("REQ%06d", n), Kind: ledger.Refusal, Name: "input_validation_fail",
		Site: "shop.example.com", Method: "GET", Host: "shop.example.com", Path: "/search?q=1", Status: 403,
		Client: netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}).String(), Guard: "waf", Reason: "attack",
		Verdicts: []ledger.Verdict{{Guard: "waf", Effect: merlon.Deny, Reason: "attack", Status: 403,
			Findings: []merlon.Finding{{Rule: "942100", Part: `query parameter "q"`, Value: "1' or 1", Message: "SQL injection"}}}},
	}
}

func fill(t testing.TB, l *ledger.Log, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := l.Append(refusal(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func query(t testing.TB, dir string, f ledger.Filter) []ledger.Event {
	t.Helper()
	var out []ledger.Event
	for e, err := range ledger.Query(dir, f) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func verify(t testing.TB, dir string, known ...ledger.Head) ledger.Report {
	t.Helper()
	r, err := ledger.Verify(dir, ledger.Config{}, known...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantUntouched(t testing.TB, dir string) ledger.Report {
	t.Helper()
	r := verify(t, dir)
	if !r.OK() {
		t.Fatalf("reported as tampered with: %v", r.Problems)
	}
	return r
}

// files returns the chain files, oldest first.
func files(t testing.TB, dir string) []string {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(dir, "events", "events-*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// eventually waits for something that the writer does in its own time.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

type alarms struct {
	mu   sync.Mutex
	seen []ledger.Event
}

func (a *alarms) on(e ledger.Event) {
	a.mu.Lock()
	a.seen = append(a.seen, e)
	a.mu.Unlock()
}

func (a *alarms) have(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.seen {
		if e.Name == name {
			return true
		}
	}
	return false
}

func TestEveryMistakeInTheConfigIsReported(t *testing.T) {
	_, err := ledger.Open(t.TempDir(), ledger.Config{Sync: "never", OnFull: "x", Spool: 1, Rotate: 1, Keep: 1, MaxTotal: 3, Burst: -1, Details: 1})
	for _, s := range []string{`sync "never"`, `on_full "x"`, `spool "1"`, `rotate "1"`, `keep "1ns"`, `max_total "3"`, `burst "-1"`, `details "1"`} {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("no word about %s in %v", s, err)
		}
	}
	if err := ledger.Check(ledger.Config{}); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
}

func TestEventsAppendedByManyAreAllThereAfterClose(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				if err := l.Append(refusal(g*500 + i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	closeLog(t, l)
	if err := l.Append(refusal(1)); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	seen := map[string]bool{}
	for _, e := range query(t, dir, ledger.Filter{}) {
		seen[e.ID] = true
	}
	if len(seen) != 4000 {
		t.Errorf("%d of 4000 events", len(seen))
	}
	if r := wantUntouched(t, dir); r.Lines != 4000 {
		t.Errorf("%d lines verified", r.Lines)
	}
}

func TestWithSyncAlwaysAnAppendedEventIsOnTheDiskAndCheckpointed(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{Sync: ledger.SyncAlways})
	for i := range 3 {
		fill(t, l, i, i+1)
		if r := wantUntouched(t, dir); r.Lines != uint64(i+1) || len(r.Notes) > 0 {
			t.Fatalf("after %d: %d lines, notes %v", i+1, r.Lines, r.Notes)
		}
	}
}

func TestFilesAreReadableByTheirOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{})
	fill(t, l, 0, 1)
	closeLog(t, l)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		info, _ := d.Info()
		if path != dir && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "keys", "ledger.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Open(dir, ledger.Config{}); err == nil || !strings.Contains(err.Error(), "owner only") {
		t.Errorf("a key that others can read: %v", err)
	}
}

func TestAnotherOpenGoesOnWithTheChainOnceItIsFree(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, ledger.Config{})
	fill(t, a, 0, 10)
	b := open(t, dir, ledger.Config{}) // takes over while a drains
	var wg sync.WaitGroup
	wg.Go(func() { fill(t, a, 10, 20) })
	wg.Go(func() { fill(t, b, 20, 30) })
	wg.Wait()
	if n := len(files(t, dir)); n != 2 {
		t.Errorf("%d files for two writers", n)
	}
	closeLog(t, a)
	closeLog(t, b)
	wantUntouched(t, dir)
	for i := range 5 {
		l := open(t, dir, ledger.Config{})
		fill(t, l, 30+i, 31+i)
		closeLog(t, l)
	}
	if n := len(files(t, dir)); n != 2 {
		t.Errorf("%d files after five more starts: chains are not gone on with", n)
	}
	r := wantUntouched(t, dir)
	if r.Lines != 35 || len(r.Notes) > 0 {
		t.Errorf("%d lines, notes %v", r.Lines, r.Notes)
	}
}

func TestRotationLinksFilesAndRetentionKeepsTheChainWhole(t *testing.T) {
	dir := t.TempDir()
	c := ledger.Config{Rotate: 64 * merlon.KiB, MaxTotal: 256 * merlon.KiB, Details: merlon.GiB}
	l := open(t, dir, c)
	for i := range 30 {
		fill(t, l, i*100, i*100+100)
		eventually(t, "the queue is written", func() bool { return l.Stats().Queued == 0 })
	}
	eventually(t, "all written", func() bool { return l.Stats().Written >= 3000 })
	closeLog(t, l)
	var total int64
	for _, f := range files(t, dir) {
		info, _ := os.Stat(f)
		total += info.Size()
	}
	if n := len(files(t, dir)); n < 2 || total > 512<<10 {
		t.Errorf("%d files with %d bytes", n, total)
	}
	wantUntouched(t, dir)
	pruned := query(t, dir, ledger.Filter{Kind: ledger.Admin})
	if len(pruned) == 0 || pruned[0].Name != "log_pruned" || pruned[0].Attrs["hash"] == "" {
		t.Errorf("pruning is not on record: %v", pruned)
	}
	if e, err := ledger.Find(dir, "REQ002999"); err != nil || e.Client == "" {
		t.Errorf("the newest event: %v %v", e, err)
	}
	// The files that are left are still held together.
	left := files(t, dir)
	if err := os.Remove(left[0]); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir); r.OK() {
		t.Error("the oldest file that was left was removed unnoticed")
	}
}

func TestAFloodIsCountedExactlyAndCostsLittleDisk(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{})
	const n = 100_000
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range n / 4 {
				if err := l.Append(refusal(7)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	quiet := refusal(8) // the neighbour's single refusal stays in detail
	if err := l.Append(quiet); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	var counted uint64
	found := false
	events := query(t, dir, ledger.Filter{})
	for _, e := range events {
		if e.ID == quiet.ID {
			found = true
			continue
		}
		counted += max(1, e.Count)
		if e.Count > 0 && (e.Client != refusal(7).Client || !strings.Contains(e.Message, " more like it since ")) {
			t.Errorf("the count says %q of %q", e.Message, e.Client)
		}
	}
	if counted != n || !found {
		t.Errorf("%d of %d counted, the other's found: %t", counted, n, found)
	}
	if len(events) > 500 {
		t.Errorf("%d lines for a flood", len(events))
	}
	if s := l.Stats(); s.Lost != 0 || s.Folded == 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestAFloodFromManyAddressesSpendsOnlyTheDaysShare(t *testing.T) {
	dir := t.TempDir()
	var a alarms
	l := open(t, dir, ledger.Config{Details: 64 * merlon.KiB, OnAlarm: a.on})
	const n = 50_000
	for i := range n {
		if err := l.Append(refusal(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append(ledger.Event{Kind: ledger.Admin, Name: "authz_admin", Message: "role granted"}); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	var counted uint64
	admin := false
	for _, e := range query(t, dir, ledger.Filter{}) {
		switch e.Kind {
		case ledger.Admin:
			admin = true
		case ledger.Refusal:
			counted += max(1, e.Count)
		}
	}
	if counted != n || !admin {
		t.Errorf("%d of %d counted, administrative act kept: %t", counted, n, admin)
	}
	if info, _ := os.Stat(files(t, dir)[0]); info.Size() > 200<<10 {
		t.Errorf("%d bytes for a share of 64 KiB", info.Size())
	}
	if !a.have("log_flood") {
		t.Error("no alarm says that details are no longer written")
	}
}

func TestAClockSetBackIsTold(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{})
	e := refusal(1)
	e.Time = time.Now().Add(time.Hour)
	if err := l.Append(e); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	var a alarms
	l = open(t, dir, ledger.Config{OnAlarm: a.on})
	closeLog(t, l)
	if !a.have("clock_set_back") {
		t.Error("not told")
	}
	wantUntouched(t, dir)
}

func TestAWriterThatSeesItsFileTamperedWithSaysSoAndGoesOn(t *testing.T) {
	for name, tamper := range map[string]func(dir, file string) error{
		"cut":             func(_, f string) error { return os.Truncate(f, 100) },
		"removed":         func(_, f string) error { return os.Remove(f) },
		"checkpoint gone": func(d, _ string) error { return os.Remove(filepath.Join(d, "events", "heads.json")) },
		"checkpoint changed": func(d, _ string) error {
			return os.WriteFile(filepath.Join(d, "events", "heads.json"), []byte("{}\n\n"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var a alarms
			l := open(t, dir, ledger.Config{Sync: ledger.SyncAlways, OnAlarm: a.on})
			fill(t, l, 0, 5)
			if err := tamper(dir, files(t, dir)[0]); err != nil {
				t.Fatal(err)
			}
			fill(t, l, 5, 10)
			closeLog(t, l)
			if !a.have("log_tampered") {
				t.Error("no alarm")
			}
			if _, err := ledger.Find(dir, "REQ000009"); err != nil {
				t.Errorf("what came after is lost: %v", err)
			}
		})
	}
}

// BenchmarkAppend measures what the way of a request pays while the writer
// keeps up.
func BenchmarkAppend(b *testing.B) {
	l := open(b, b.TempDir(), ledger.Config{})
	e := refusal(1)
	e.Kind = ledger.Access // not thinned out
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := l.Append(e); err != nil {
			b.Fatal(err)
		}
		if i%2048 == 0 {
			b.StopTimer()
			for l.Stats().Queued > 0 {
				time.Sleep(time.Millisecond)
			}
			b.StartTimer()
		}
	}
}

// BenchmarkFlood measures it for events that are only counted.
func BenchmarkFlood(b *testing.B) {
	l := open(b, b.TempDir(), ledger.Config{})
	e := refusal(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWritten measures what an event costs in all, encoding, chaining
// and the disk included.
func BenchmarkWritten(b *testing.B) {
	l := open(b, b.TempDir(), ledger.Config{Access: true})
	e := refusal(1)
	e.Kind = ledger.Access // not thinned out
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		for l.Stats().Queued > 8192 {
			time.Sleep(time.Millisecond)
		}
		if err := l.Append(e); err != nil {
			b.Fatal(err)
		}
		n++
	}
	for l.Stats().Written < n {
		time.Sleep(time.Millisecond)
	}
}

func printed(t testing.TB, e ledger.Event) string {
	t.Helper()
	var b bytes.Buffer
	if err := ledger.Format(&b, e, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
