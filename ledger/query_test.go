package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ledger"
)

func ids(events []ledger.Event) string {
	var out []string
	for _, e := range events {
		out = append(out, e.ID)
	}
	return strings.Join(out, " ")
}

func TestQueryMergesChainsByTimeAndFilters(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir, ledger.Config{}), open(t, dir, ledger.Config{})
	start := time.Now().UTC().Add(-24 * time.Hour) // within what retention keeps
	for i := range 6 {
		e := ledger.Event{ID: fmt.Sprint("E", i), Time: start.Add(time.Duration(i) * time.Hour), Kind: ledger.Refusal,
			Guard: "waf", Client: fmt.Sprintf("10.0.%d.1", i), Site: "a", Reason: "r"}
		if i%2 == 1 {
			e.Guard, e.Kind, e.Site = "csrf", ledger.Challenge, "b"
		}
		if err := []*ledger.Log{a, b}[i%2].Append(e); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, a)
	closeLog(t, b)
	for _, c := range []struct {
		name string
		f    ledger.Filter
		want string
	}{
		{"all", ledger.Filter{}, "E0 E1 E2 E3 E4 E5"},
		{"since", ledger.Filter{Since: start.Add(4 * time.Hour)}, "E4 E5"},
		{"until", ledger.Filter{Until: start.Add(2 * time.Hour)}, "E0 E1"},
		{"kind", ledger.Filter{Kind: ledger.Challenge}, "E1 E3 E5"},
		{"guard", ledger.Filter{Guard: "waf"}, "E0 E2 E4"},
		{"site", ledger.Filter{Site: "b"}, "E1 E3 E5"},
		{"client", ledger.Filter{Client: "10.0.3."}, "E3"},
		{"reason", ledger.Filter{Reason: "x"}, ""},
		{"id", ledger.Filter{ID: "E2"}, "E2"},
		{"the newest two", ledger.Filter{Limit: 2}, "E4 E5"},
		{"the newest two of one kind", ledger.Filter{Limit: 2, Guard: "waf"}, "E2 E4"},
		{"more than there are", ledger.Filter{Limit: 100}, "E0 E1 E2 E3 E4 E5"},
	} {
		if got := ids(query(t, dir, c.f)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if e := query(t, dir, ledger.Filter{ID: "E2"})[0]; e.Seq != 2 || e.Chain == "" {
		t.Errorf("seq %d of chain %q", e.Seq, e.Chain)
	}
	for range ledger.Query(dir, ledger.Filter{}) {
		break // stopping early must not hang or leak
	}
	missing := false
	for _, err := range ledger.Query(t.TempDir(), ledger.Filter{}) {
		missing = errors.Is(err, os.ErrNotExist)
	}
	if !missing {
		t.Error("a folder without a log gives no error")
	}
}

func TestTheNewestAreTheNewestOverManyFiles(t *testing.T) {
	dir := written(t, 600, 64*merlon.KiB)
	for _, n := range []int{1, 50, 250, 599, 600, 601} {
		got := query(t, dir, ledger.Filter{Limit: n, Guard: "waf"})
		if len(got) != min(n, 600) || got[len(got)-1].ID != refusal(599).ID || got[0].ID != refusal(600-min(n, 600)).ID {
			t.Errorf("%d: %d events, from %s", n, len(got), got[0].ID)
		}
	}
	if got := query(t, dir, ledger.Filter{Limit: 5, ID: refusal(3).ID}); len(got) != 1 {
		t.Errorf("an old one: %d events", len(got))
	}
}

func TestFollowBeginsWithWhatIsNew(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{Sync: ledger.SyncAlways})
	fill(t, l, 0, 5)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		time.Sleep(300 * time.Millisecond)
		_ = l.Append(refusal(5))
	}()
	for e, err := range ledger.Follow(ctx, dir, ledger.Filter{}) {
		if err != nil || e.ID != refusal(5).ID {
			t.Errorf("%s %v", e.ID, err)
		}
		return
	}
	t.Error("nothing came")
}

func TestQueryGoesOnAfterALineThatCannotBeRead(t *testing.T) {
	dir := written(t, 5, 0)
	file := files(t, dir)[0]
	ls := lines(t, file)
	ls[2] = []byte(strings.Repeat("x", 300_000) + "\n")
	write(t, file, ls)
	n, errs := 0, []string{}
	for _, err := range ledger.Query(dir, ledger.Filter{}) {
		if err != nil {
			errs = append(errs, err.Error())
			continue
		}
		n++
	}
	if n != 4 || len(errs) != 1 || !strings.Contains(errs[0], filepath.Base(file)+":3: ") {
		t.Errorf("%d events, errors %v", n, errs)
	}
}

func TestFollowSurvivesRotationAndNewWriters(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{Rotate: 64 * merlon.KiB, Details: merlon.GiB})
	fill(t, l, 0, 10)
	eventually(t, "written", func() bool { return l.Stats().Written == 10 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan ledger.Event, 10000)
	go func() {
		defer close(got)
		for e, err := range ledger.Follow(ctx, dir, ledger.Filter{Limit: 3, Guard: "waf"}) {
			if err != nil {
				t.Error(err)
			}
			got <- e
		}
	}()
	for i := 7; i < 10; i++ {
		if e := <-got; e.ID != refusal(i).ID {
			t.Fatalf("began with %s", e.ID)
		}
	}
	for i := 10; i < 510; i += 100 {
		fill(t, l, i, i+100)
		eventually(t, "written", func() bool { return l.Stats().Queued == 0 })
		time.Sleep(120 * time.Millisecond)
	}
	other := open(t, dir, ledger.Config{})
	fill(t, other, 510, 520)
	seen := map[string]int{}
	for len(seen) < 510 {
		e, ok := <-got
		if !ok {
			t.Fatalf("%d of 510 events", len(seen))
		}
		seen[e.ID]++
	}
	cancel()
	for e := range got {
		seen[e.ID]++
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	if len(files(t, dir)) < 3 {
		t.Error("nothing was rotated")
	}
}

func TestFindReadsFromTheNewestOnAndFindsEveryId(t *testing.T) {
	dir := written(t, 600, 64*merlon.KiB)
	for i := range 600 {
		if e, err := ledger.Find(dir, refusal(i).ID); err != nil || e.ID != refusal(i).ID || e.Seq != uint64(i+1) || e.Chain == "" {
			t.Fatalf("%s: %v %+v", refusal(i).ID, err, e)
		}
	}
	for _, id := range []string{"", "REQ", "nosuch", "REQ000001\"", "*"} {
		if _, err := ledger.Find(dir, id); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestFindSeesLinesAcrossItsBlocks(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{Details: merlon.GiB, Spool: 64 * merlon.MiB})
	for i := range 3000 { // 3 MB in one file
		e := refusal(i)
		e.Remedy = strings.Repeat("r", i%1500)
		if err := l.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
	ls := lines(t, files(t, dir)[0])
	end, at, tried := 0, 0, 0
	for _, l := range ls {
		end += len(l)
	}
	for i, l := range ls {
		at += len(l)
		if near := (end - at) % (1 << 20); near > 4<<10 && near < 1<<20-4<<10 {
			continue
		}
		tried++
		if _, err := ledger.Find(dir, refusal(i).ID); err != nil {
			t.Fatalf("%s: %v", refusal(i).ID, err)
		}
	}
	if tried < 10 {
		t.Fatalf("only %d lines are near the edge of a block", tried)
	}
}

func TestExplainSaysWhatWhyAndWhatToDo(t *testing.T) {
	e := event(t, "POST /api/search?q=1%27+or+1%3D1", says{"origin", merlon.Pass("known-host")}, merlon.Monitor(says{"csrf", merlon.Refuse(403, "cross-site")}),
		says{"waf", sqli("1' or 1=1")})
	var b strings.Builder
	err := ledger.Explain(&b, e, func(guard, reason string) string { return "The manual on " + guard + " " + reason + "." })
	if err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, s := range []string{"an anonymous client at 192.0.2.1", "POST shop.example.com/api/search?q=1%27+or+1%3D1", "site shop.example.com, route /api/**",
		"waf refused it with status 403 (attack). The upstream did not see it.", "The manual on waf attack.", "rule 942100: SQL injection", `in query parameter "q"`,
		"csrf would also have refused it, but is only monitored (cross-site)", "Guards that let it pass: origin (known-host).",
		"    waf:\n      exclude:\n        - rule: 942100\n", "in the route /api/** of the site shop.example.com"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), strings.Join(strings.Fields(s), " ")) {
			t.Errorf("no %q in\n%s", s, text)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	t.Log("\n" + text)
	e.Remedy = ""
	b.Reset()
	if err := ledger.Explain(&b, e, nil); err != nil || !strings.Contains(b.String(), "No setting is known") {
		t.Errorf("without a remedy: %v %s", err, b.String())
	}
}

func TestExplainTellsShadowsApart(t *testing.T) {
	shadow := merlon.Shadow(says{"waf", sqli("1' or 1=1")})
	for _, c := range []struct {
		name       string
		guards     []merlon.Guard
		has, hasnt []string
	}{
		{"only the shadow refuses", []merlon.Guard{shadow, says{"waf", merlon.Pass("clean")}},
			[]string{"It passed, with status 200. The shadow of waf, another configuration of it that is not obeyed, would have refused it (attack).",
				"What the shadow of waf saw:", "rule 942100", "Guards that let it pass: waf (clean).", "waf:\n      shadow:\n        exclude:\n          - rule: 942100\n"},
			[]string{"would also"}},
		{"both refuse", []merlon.Guard{shadow, says{"waf", merlon.Refuse(400, "malformed-body")}},
			[]string{"waf refused it with status 400 (malformed-body).", "the shadow of waf would also have refused it (attack).", "What the shadow of waf saw:"},
			[]string{"shadow:\n"}},
		{"the shadow would let it pass", []merlon.Guard{merlon.Shadow(says{"waf", merlon.Pass("clean")}), says{"waf", sqli("1' or 1=1")}},
			[]string{"waf refused it with status 403 (attack).", "What waf saw:", "Guards that let it pass: the shadow of waf (clean)."},
			[]string{"would also", "shadow:\n"}},
	} {
		var b strings.Builder
		if err := ledger.Explain(&b, event(t, "GET /?q=1", c.guards...), nil); err != nil {
			t.Fatal(err)
		}
		flat := func(s string) string { return strings.Join(strings.Fields(s), " ") }
		for _, s := range c.has {
			if !strings.Contains(flat(b.String()), flat(s)) {
				t.Errorf("%s: no %q in\n%s", c.name, s, &b)
			}
		}
		for _, s := range c.hasnt {
			if strings.Contains(b.String(), s) {
				t.Errorf("%s: %q in\n%s", c.name, s, &b)
			}
		}
	}
}

func TestFormatIsOneLineAndColouredOnlyWhenAsked(t *testing.T) {
	e := event(t, "GET /a", says{"waf", sqli("x")})
	plain := printed(t, e)
	var b strings.Builder
	if err := ledger.Format(&b, e, true); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plain, "\x1b") || !strings.Contains(b.String(), "\x1b[31m") || !strings.Contains(plain, "refusal") ||
		!strings.Contains(plain, "waf attack") || !strings.HasSuffix(plain, "TESTID\n") {
		t.Errorf("%q, %q", plain, b.String())
	}
}

func TestSinceReadsDurationsAndTimes(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{"1h": "11:00", "-1h": "11:00", "2d": "12:00", "2026-11-27T10:00:00Z": "10:00", "2026-11-27 09:00:00": "09:00", "2026-11-27": "00:00"} {
		if got, err := ledger.Since(text, now); err != nil || got.Format("15:04") != want {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
	if _, err := ledger.Since("yesterday", now); err == nil || !strings.Contains(err.Error(), "such as 1h") {
		t.Errorf("%v", err)
	}
}
