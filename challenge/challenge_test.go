package challenge_test

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/secrets"
)

const page = "\nAccept: text/html,application/xhtml+xml,*/*;q=0.8\nSec-Fetch-Mode: navigate"

func ann(r *merlon.Request) { r.Identity = &merlon.Identity{Subject: "ann"} }

func tries(r *merlon.Request) bool { return r.Header.Get("Authorization") != "" }

func TestChecks(t *testing.T) {
	client := netip.MustParseAddr("192.0.2.1")
	mine := func(bits int, age time.Duration) string {
		return "\nCookie: a=b; " + challenge.Cookie + "=" + challenge.Pass(key(t), site, client, bits, time.Now().Add(-age))
	}
	good := mine(18, time.Hour)
	other, err := secrets.NewKey(secrets.New("another key that is just as long as it"))
	if err != nil {
		t.Fatal(err)
	}
	always := challenge.Config{When: challenge.Always, Allow: []challenge.Allow{
		{Kind: "feeds"}, {Path: "/hooks/**"}, {From: challenge.List{"198.51.100.0/24", "2001:db8:7::/48"}}, {Path: "/in/*", From: challenge.List{"203.0.113.9"}},
	}}
	const no = http.StatusForbidden
	cases := []merlontest.Case{
		{Name: "a page without a pass", Request: "GET /" + page, Want: challenge.WorkRequired, Status: no},
		{Name: "a program", Request: "GET /api/x\nAccept: application/json", Want: challenge.WorkRequired, Status: no},
		{Name: "a form", Request: "POST /buy" + page + "\nContent-Type: application/x-www-form-urlencoded\n\na=b", Want: challenge.WorkRequired, Status: no},
		{Name: "a WebSocket", Request: "GET /ws\nConnection: upgrade\nUpgrade: websocket\nSec-Fetch-Mode: websocket", Want: challenge.WorkRequired, Status: no},
		{Name: "a pass", Request: "GET /" + page + good, Want: challenge.HasPassed},
		{Name: "a pass with a WebSocket", Request: "GET /ws\nConnection: upgrade\nUpgrade: websocket" + good, Want: challenge.HasPassed},
		{Name: "more work than asked", Request: "GET /" + page + mine(20, 0), Want: challenge.HasPassed},
		{Name: "less work than asked", Request: "GET /" + page + mine(17, 0), Want: challenge.WorkRequired, Status: no},
		{Name: "a pass just before it runs out", Request: "GET /" + page + mine(18, 6*time.Hour-time.Minute), Want: challenge.HasPassed},
		{Name: "a pass that has run out", Request: "GET /" + page + mine(18, 6*time.Hour), Want: challenge.WorkRequired, Status: no},
		{Name: "a pass from the future", Request: "GET /" + page + mine(18, -time.Hour), Want: challenge.WorkRequired, Status: no},
		{Name: "a stolen pass, other address", Request: "GET /" + page + good, Client: "192.0.2.2", Want: challenge.WorkRequired, Status: no},
		{Name: "a stolen pass, header tricks", Client: "192.0.2.2",
			Request: "GET /" + page + "\nX-Forwarded-For: 192.0.2.1\nForwarded: for=192.0.2.1\nX-Real-IP: 192.0.2.1" + good, Want: challenge.WorkRequired, Status: no},
		{Name: "a pass of another site", Request: "GET /" + page + "\nHost: wiki.example.com" + good, Want: challenge.WorkRequired, Status: no},
		{Name: "a pass by another key", Want: challenge.WorkRequired, Status: no,
			Request: "GET /" + page + "\nCookie: " + challenge.Cookie + "=" + challenge.Pass(other, site, client, 18, time.Now())},
		{Name: "two passes", Request: "GET /" + page + good + good, Want: challenge.WorkRequired, Status: no},
		{Name: "a short pass", Request: "GET /" + page + good[:len(good)-1], Want: challenge.WorkRequired, Status: no},
		{Name: "a long pass", Request: "GET /" + page + good + "A", Want: challenge.WorkRequired, Status: no},
		{Name: "no pass in it", Request: "GET /" + page + "\nCookie: " + challenge.Cookie + "=", Want: challenge.WorkRequired, Status: no},
		{Name: "a pass elsewhere", Request: "GET /?" + challenge.Cookie + "=x" + page + strings.Replace(good, "Cookie", "X-Cookie", 1), Want: challenge.WorkRequired, Status: no},
		{Name: "somebody known", Request: "GET /" + page, Prepare: ann, Want: challenge.IsKnown},
		{Name: "the page itself", Request: "GET /.merlon/challenge?to=/", Want: challenge.NotAsked},
		{Name: "its files", Request: "GET /.merlon/challenge/x.js", Want: challenge.NotAsked},
		{Name: "what only begins so", Request: "GET /.merlon/challenges" + page, Want: challenge.WorkRequired, Status: no},
		{Name: "an allowed path", Request: "POST /hooks/a/b\nContent-Type: application/json\n\n{}", Want: challenge.Exempt},
		{Name: "not quite it", Request: "POST /hook/a\n\n{}", Want: challenge.WorkRequired, Status: no},
		{Name: "an allowed network", Request: "GET /" + page, Client: "198.51.100.77", Want: challenge.Exempt},
		{Name: "an allowed IPv6 network", Request: "GET /" + page, Client: "2001:db8:7:1::1", Want: challenge.Exempt},
		{Name: "path and address", Request: "GET /in/a", Client: "203.0.113.9", Want: challenge.Exempt},
		{Name: "only the path", Request: "GET /in/a", Want: challenge.WorkRequired, Status: no},
		{Name: "only the address", Request: "GET /out", Client: "203.0.113.9", Want: challenge.WorkRequired, Status: no},
		{Name: "a feed", Request: "GET /blog/feed/", Want: challenge.Exempt},
		{Name: "a feed that is sent", Request: "POST /blog/feed/", Want: challenge.WorkRequired, Status: no},
		{Name: "accepts feeds", Request: "GET /search\nAccept: application/rss+xml", Want: challenge.WorkRequired, Status: no},
		{Name: "nobody knows from where", Request: "GET /" + page + good, Prepare: func(r *merlon.Request) { r.Client = netip.Addr{} }, Want: challenge.WorkRequired, Status: no},
	}
	merlontest.Run(t, func(t *testing.T) merlon.Guard { return guard(t, always) }, merlontest.Options{}, cases)

	merlontest.Run(t, func(t *testing.T) merlon.Guard { return guard(t, challenge.Config{}) }, merlontest.Options{}, []merlontest.Case{
		{Name: "without load", Request: "GET /" + page, Want: challenge.NotAsked},
	})
	merlontest.Run(t, func(t *testing.T) merlon.Guard { return guard(t, challenge.Config{When: challenge.Never}) }, merlontest.Options{}, []merlontest.Case{
		{Name: "never", Request: "GET /" + page, Want: challenge.NotAsked},
	})
}

// One home is one client: its pass is good at all of its addresses.
func TestNetworks(t *testing.T) {
	for _, c := range []struct {
		got, used string
		good      bool
	}{
		{"2001:db8:1:2::3", "2001:db8:1:2:ffff::9", true},
		{"2001:db8:1:2::3", "2001:db8:1:3::3", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "64:ff9b::192.0.2.1", true},
		{"64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", false},
		{"192.0.2.1", "192.0.2.0", false},
	} {
		r := merlontest.Request(t, "GET /\nCookie: "+challenge.Cookie+"="+challenge.Pass(key(t), site, netip.MustParseAddr(c.got), 18, time.Now()))
		r.Site, r.Client = site, netip.MustParseAddr(c.used)
		if _, ok := guard(t, challenge.Config{}).Passed(r); ok != c.good {
			t.Errorf("got at %s, used at %s: %v", c.got, c.used, ok)
		}
	}
}

func TestWhatIsTold(t *testing.T) {
	g := guard(t, challenge.Config{When: challenge.Always, Bits: 20, Wait: 15 * time.Second})
	ask := func(wire string) merlon.Decision {
		r := merlontest.Request(t, wire)
		r.Site = site
		return g.Check(r)
	}
	const where = "/.merlon/challenge?bits=20&wait=15"
	d := ask("GET /a/b?x=1&y=%2F" + page)
	if d.Effect != merlon.Challenge || d.Location != where+"&to=%2Fa%2Fb%3Fx%3D1%26y%3D%252F" || d.Problem == "" || d.Header.Get(challenge.Header) != "" {
		t.Errorf("a page: %+v", d)
	}
	if d = ask("HEAD /" + page); d.Location != where+"&to=%2F" {
		t.Errorf("the head of a page: %+v", d)
	}
	if d = ask("POST /buy" + page + "\n\na=b"); d.Location != "" || d.Header.Get(challenge.Header) != "" {
		t.Errorf("a form, which the gateway keeps: %+v", d)
	}
	d = ask("GET /api/{x}\nSec-Fetch-Mode: cors\nAccept: */*")
	if d.Location != "" || d.Header.Get(challenge.Header) != where || d.Header.Get("Retry-After") != "" {
		t.Errorf("a script's request: %+v", d)
	}
	if want := "challenge:\n  allow: [{path: \"/api/\\\\{x\\\\}\", from: \"192.0.2.1\"}]"; d.Remedy != want {
		t.Errorf("remedy\n%s\nwant\n%s", d.Remedy, want)
	}
	var f struct{ Challenge challenge.Config }
	if err := yaml.UnmarshalWithOptions([]byte(d.Remedy), &f, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	f.Challenge.When = challenge.Always
	r := merlontest.Request(t, "GET /api/{x}\nSec-Fetch-Mode: cors\nAccept: */*")
	if d := guard(t, f.Challenge).Check(r); d.Reason != challenge.Exempt {
		t.Errorf("the remedy does not help: %+v", d)
	}
	if got := g.Page("/resume?ticket=1"); got != where+"&to=%2Fresume%3Fticket%3D1" {
		t.Errorf("the page is at %s", got)
	}
}

// A proof of identity is looked at first; if it does not hold, it bought nothing.
func TestKnown(t *testing.T) {
	g := guard(t, challenge.Config{When: challenge.Always}, func(e *challenge.Env) { e.Tries = tries })
	for _, c := range []struct {
		name, wire string
		identity   func(*merlon.Request)
		want       []merlon.Reason
	}{
		{"a key that holds", "GET /\nAuthorization: Bearer x", ann, []merlon.Reason{challenge.IdentityFirst, challenge.IsKnown}},
		{"a key that does not", "GET /\nAuthorization: Bearer x", nil, []merlon.Reason{challenge.IdentityFirst, challenge.WorkRequired}},
		{"no key", "GET /", nil, []merlon.Reason{challenge.WorkRequired}},
		{"an allowed path with a bad key", "GET /robots.txt\nAuthorization: Bearer x", nil, []merlon.Reason{challenge.IdentityFirst, challenge.Exempt}},
	} {
		r := merlontest.Request(t, c.wire)
		r.Site = site
		merlon.NewGate(g, prover{c.identity}, g.Known()).Check(r)
		var got []merlon.Reason
		for _, v := range r.Verdicts() {
			if v.Guard == "challenge" {
				got = append(got, v.Decision.Reason)
			}
		}
		if len(got) != len(c.want) || got[len(got)-1] != c.want[len(c.want)-1] || got[0] != c.want[0] {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	r := merlontest.Request(t, "GET /")
	merlon.NewGate(merlon.Monitor(g), merlon.Monitor(g.Known())).Check(r)
	if v := r.Verdicts(); len(v) != 2 || v[0].Decision.Reason != challenge.WorkRequired || v[1].Decision.Effect != merlon.Allow {
		t.Errorf("monitored, it is told twice: %+v", v)
	}
	if guard(t, challenge.Config{When: challenge.Always}).Known() != nil {
		t.Error("where nobody can sign in there is a second face")
	}
	if _, ok := g.Known().(merlon.Finisher); ok {
		t.Error("answers would be counted twice")
	}
}

type prover struct{ set func(*merlon.Request) }

func (prover) Name() string { return "identity" }
func (p prover) Check(r *merlon.Request) merlon.Decision {
	if p.set != nil {
		p.set(r)
	}
	return merlon.Pass("tried")
}

func TestConfig(t *testing.T) {
	const file = `
when: always
over: {rate: 500/min, errors: 20%}
calm: 5m
bits: 20
pass: 24h
wait: 20s
allow: [feeds, no-defaults, {crawlers: [google, bing]}, {path: /webhooks/**}, {from: 192.0.2.0/24}, {path: /x, from: [10.0.0.1, "2001:db8::/32"]}]
`
	var c challenge.Config
	if err := yaml.UnmarshalWithOptions([]byte(file), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if len(c.Allow) != 6 || c.Allow[0].Kind != "feeds" || len(c.Allow[2].Crawlers) != 2 || len(c.Allow[5].From) != 2 || c.Over.Rate.String() != "500/min" || c.Over.Errors.String() != "20%" {
		t.Errorf("read as %+v", c)
	}
	g := guard(t, c)
	r := merlontest.Request(t, "GET /robots.txt")
	r.Client = netip.MustParseAddr("198.51.100.1")
	if d := g.Check(r); d.Reason != challenge.WorkRequired {
		t.Errorf("no-defaults leaves some: %+v", d)
	}
	for _, bad := range []string{"when: sometimes", "over: {rate: 5}", "over: {rate: 0/s}", "over: {rate: 20000000/s}", "over: {rate: -1/s}", "over: {rate: 5/h}", "over: {errors: 30}", "over: {errors: 0%}", "over: {errors: 100%}", "allow: [[x]]"} {
		if err := yaml.Unmarshal([]byte(bad), &challenge.Config{}); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestMistakes(t *testing.T) {
	off := challenge.Over{Rate: challenge.Rate{Off: true}, Errors: challenge.Share{Off: true}}
	c := challenge.Config{When: "sometimes", Calm: time.Second, Bits: 7, Pass: 8 * 24 * time.Hour, Wait: time.Second,
		Over: challenge.Over{Rate: challenge.Rate{Count: -1}, Errors: challenge.Share{Percent: 101}},
		Allow: []challenge.Allow{{}, {Kind: "bots"}, {Crawlers: challenge.List{"altavista"}}, {Path: "hooks"}, {Path: "/["}, {Kind: "git", Crawlers: challenge.List{"bing"}},
			{From: challenge.List{"192.0.2.1/24", "x", "fe80::1%1", "::ffff:1.2.3.0/120", "10.0.0.1"}}, {Kind: "no-defaults", Path: "/x"}}}
	_, err := challenge.New(c, challenge.Env{})
	if err == nil {
		t.Fatal("no mistake was found")
	}
	for _, want := range []string{
		`needs a key`, `needs the site's load`, `when "sometimes": must be always, load or never`, `calm "1s": must be from 10s to 24h`,
		`bits "7": must be from 8 to 24`, `pass "192h0m0s": must be from 1m to 168h`, `wait "1s": must be from 5s to 2m`,
		`over.rate "-1/0s": must be a number`, `over.errors "101%": must be from 1% to 99%`,
		`allow[0]: must say who is meant`, `allow[1].kind "bots": must be one of crawlers, git`, `allow[2].crawlers "altavista": must be one of google`,
		`allow[3].path "hooks": must be a path pattern`, `allow[4].path "/[": must be a path pattern`, `allow[5].crawlers: must not stand beside kind: git`,
		`allow[6].from[0] "192.0.2.1/24": must have no bits beyond`, `allow[6].from[1] "x": must be an address`, `allow[6].from[2] "fe80::1%1"`,
		`allow[6].from[3] "::ffff:1.2.3.0/120": must be written`, `allow[7].kind "no-defaults": must stand alone`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not told: %s\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "from[4]") {
		t.Error("a good address is told as a mistake")
	}
	env := challenge.Env{Key: key(t), Load: challenge.NewLoad(), Crawlers: challenge.NewCrawlers(nobody{})}
	if _, err := challenge.New(challenge.Config{When: challenge.OnLoad, Over: off}, env); err == nil || !strings.Contains(err.Error(), "such as {rate: 500/s}") {
		t.Errorf("what is never on: %v", err)
	}
	if _, err := challenge.New(challenge.Config{Over: off}, env); err != nil {
		t.Errorf("nothing is asked for: %v", err)
	}
	if _, err := challenge.New(challenge.Config{When: challenge.Always, Over: off}, env); err != nil {
		t.Errorf("always without a budget: %v", err)
	}
	env.Crawlers = nil
	if _, err := challenge.New(challenge.Config{}, env); err == nil {
		t.Error("crawlers are told by nothing")
	}
	if _, err := challenge.New(challenge.Config{Allow: make([]challenge.Allow, 1001)}, env); err == nil || !strings.Contains(err.Error(), "at most 1000") {
		t.Errorf("too many rules: %v", err)
	}
	for _, e := range []challenge.PagesEnv{{}, {Key: key(t)}, {Count: memory(t)}} {
		if _, err := challenge.NewPages(e); err == nil {
			t.Error("pages were made of nothing")
		}
	}
	var se *merlon.SettingError
	if !errors.As(err, &se) {
		t.Error("mistakes have no settings")
	}
}

// What programs ask for that cannot solve anything, and what only looks so.
func TestShapes(t *testing.T) {
	g := guard(t, challenge.Config{When: challenge.Always})
	for _, c := range []struct {
		wire string
		ok   bool
	}{
		{"GET /team/repo.git/info/refs?service=git-upload-pack", true},
		{"GET /team/repo.git/info/refs?service=git-receive-pack", true},
		{"GET /search/info/refs?service=git-upload-pack&q=dear", false},
		{"GET /search?service=git-upload-pack", false},
		{"POST /r.git/git-upload-pack\nContent-Type: application/x-git-upload-pack-request\n\n0000", true},
		{"POST /r.git/git-upload-pack\nContent-Type: application/x-www-form-urlencoded\n\n0000", false},
		{"POST /r.git/info/lfs/objects/batch\nAccept: application/vnd.git-lfs+json; charset=utf-8\n\n{}", true},
		{"GET /r.git/info/lfs/locks?limit=1\nAccept: application/vnd.git-lfs+json", true},
		{"GET /r.git/info/lfs/other\nAccept: application/vnd.git-lfs+json", false},
		{"POST /r.git/info/lfs/objects/batch\n\n{}", false},
		{"GET /\nUser-Agent: git/2.50.0", false},
		{"GET /v2/", true},
		{"GET /v2/library/alpine/manifests/latest\nAccept: application/vnd.oci.image.index.v1+json", true},
		{"GET /v2/library/alpine/tags/list?n=50&last=a", true},
		{"GET /v2/library/alpine/blobs/sha256:00", true},
		{"GET /v2/pages", false},
		{"GET /v2/library/alpine/manifests/latest" + page, false},
		{"GET /left-pad/-/left-pad-1.3.0.tgz", true},
		{"GET /backup.tgz", false},
		{"GET /simple/requests/\nAccept: application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01", true},
		{"GET /packages/aa/requests-2.32.0-py3-none-any.whl", true},
		{"GET /example.com/mod/@v/list", true},
		{"GET /example.com/mod/@v/v1.0.0.zip", true},
		{"GET /example.com/mod/@latest", true},
		{"GET /example.com/mod/@v/page", false},
		{"GET /mod?go-get=1", false},
		{"GET /debian/dists/trixie/InRelease", true},
		{"GET /debian/dists/trixie/main/binary-amd64/Packages.xz", true},
		{"GET /debian/pool/main/h/hello/hello_2.10-3_amd64.deb", true},
		{"GET /fedora/repodata/repomd.xml", true},
		{"GET /index/se/rd/serde", true},
		{"GET /1/a", true},
		{"GET /3/s/syn", true},
		{"GET /index/se/xx/serde", false},
		{"GET /se/rd/serde?dear=1", false},
		{"GET /se/rd/Serde", false},
		{"POST /1/a\n\nx", false},
		{"GET /left-pad/-/left-pad-1.3.0.tgz\nSec-Fetch-Mode: navigate", false},
		{"GET /.well-known/acme-challenge/x", true},
		{"GET /robots.txt", true},
		{"GET /favicon.ico", true},
		{"GET /sitemap.xml", true},
		{"POST /robots.txt\n\nx", false},
		{"GET /x/robots.txt", false},
		{"GET /blog/feed", false}, // not by default
		{"GET /products\nAccept: application/vnd.npm.install-v1+json", false},
	} {
		r := merlontest.Request(t, c.wire)
		if d := g.Check(r); d.Passed() != c.ok {
			t.Errorf("%s: %s", strings.ReplaceAll(c.wire, "\n", " | "), d.Reason)
		}
	}
}

// A name for tries stays the same, whatever is sent again, and nobody else has it.
func TestPassed(t *testing.T) {
	w := newWorld(t, challenge.Config{When: challenge.Always, Bits: 8}, memory(t))
	b := w.browser()
	where := b.get("/").header.Get("Location")
	token := find(t, tokenField, b.get(where).body)[1]
	nonce := solve(token, 8)
	id := func(a answer) string {
		c, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
		r := merlontest.Request(t, "GET /\nCookie: "+c)
		r.Site = site
		id, ok := w.guard.Passed(r)
		if !ok || id == "" {
			t.Errorf("%q is no pass", c)
		}
		return id
	}
	first := id(b.send(where, token, nonce, "/"))
	w.wait(time.Minute)
	if again := id(b.send(where, token, nonce, "/")); again != first {
		t.Errorf("a token that is sent again gives another pass: %s, %s", first, again)
	}
	token = find(t, tokenField, b.get(where).body)[1]
	if other := id(b.send(where, token, solve(token, 8), "/")); other == first {
		t.Error("two tokens give the same pass")
	}
	if _, ok := w.guard.Passed(merlontest.Request(t, "GET /")); ok {
		t.Error("no pass is a pass")
	}
}
