package people_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

const shared = `
store: env:MERLON_STORE
redis: env:MERLON_REDIS
key: env:MERLON_KEY
off: [waf]
identity:
` + cheap + `
sites:
  - {host: localhost, upstream: BACKEND, require: login, routes: [{path: /team/**, require: {role: team}}]}
`

// replicas starts three Merlons that share a PostgreSQL and a Redis.
func replicas(t *testing.T) []*place {
	t.Helper()
	db := harness.Postgres(t)
	env := []string{"MERLON_STORE=" + db, "MERLON_REDIS=" + harness.Redis(t), "MERLON_KEY=" + strings.Repeat("0123456789", 5)}
	seed(t, postgres(db), people(t)...)
	var all []*place
	for range 3 {
		all = append(all, serve(t, t.TempDir(), shared, env))
	}
	return all
}

// at returns the same person at another replica.
func at(p *place, who *harness.Person) *harness.Person {
	other := p.person()
	other.HTTP.Jar = who.HTTP.Jar // cookies are the host's, whatever its port
	return other
}

func TestReplicas(t *testing.T) {
	t.Parallel()
	all := replicas(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, []*place)
	}{
		{"who logs in at one is in at all", inAtAll},
		{"who logs out everywhere is out everywhere", outEverywhere},
		{"who is disabled is out everywhere", disabledEverywhere},
		{"trap 46: a code is good once, whichever replica is asked", codeOnce},
		{"a link is good once, whichever replica is asked", linkOnce},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, p := range all {
				p.t = t
			}
			c.test(t, all)
		})
	}
}

func inAtAll(t *testing.T, all []*place) {
	ann := all[0].person()
	page := ann.Get("/team/x")
	login := page.SentTo("/.merlon/login")
	// The form of one replica is good at another.
	form := ann.Get(login).Want(200).Form("/.merlon/login", "name", "ann", "password", annsPassword)
	other := at(all[1], ann)
	form.URL.Host, form.Host = strings.TrimPrefix(other.Base, "https://"), ""
	form.Header.Set("Origin", other.Base)
	got, err := other.Ask(form)
	if err != nil || got.SignedIn() != "/team/x" {
		t.Fatalf("%v %+v", err, got)
	}
	for i, p := range all {
		at(p, ann).Get("/team/x").Want(200, "backend ANN-ID")
		if c := p.backend.field("Cookie"); c != "" {
			t.Errorf("replica %d: the backend sees %q", i, c)
		}
		p.person().Get("/team/x").SentTo("/.merlon/login")
	}
}

func outEverywhere(t *testing.T, all []*place) {
	ann, bob := all[0].in("ann", annsPassword), all[1].in("bob", bobsPassword)
	second := all[1].in("ann", annsPassword) // another browser of hers
	var open []<-chan time.Time
	for _, p := range all {
		open = append(open, webSocket(t, at(p, ann)), webSocket(t, at(p, second)))
	}
	bobs := webSocket(t, at(all[2], bob))
	time.Sleep(300 * time.Millisecond)
	for i, ended := range open {
		select {
		case <-ended:
			t.Fatalf("WebSocket %d has ended by itself", i)
		default:
		}
	}
	began := time.Now()
	at(all[2], ann).Get("/.merlon/account").Want(200).Send("/.merlon/account/sessions").SentTo("/.merlon/account")
	at(all[2], ann).Get("/.merlon/logout").Want(200).Send("/.merlon/logout").Want(200)
	for i, ended := range open {
		over(t, "WebSocket at replica "+string(rune('0'+i/2)), began, ended)
	}
	old := second.Cookies()
	for i, p := range all {
		within(t, "the page at replica "+string(rune('0'+i)), began, func() bool {
			return at(p, second).Get("/").Status == 303 && p.person().Get("/", "Cookie", old).Status == 303
		})
		at(p, bob).Get("/").Want(200, "backend BOB-ID")
	}
	select {
	case <-bobs:
		t.Error("bob's WebSocket has ended")
	default:
	}
}

func disabledEverywhere(t *testing.T, all []*place) {
	bob := all[0].in("bob", bobsPassword)
	var open []<-chan time.Time
	for _, p := range all {
		open = append(open, webSocket(t, at(p, bob)))
	}
	began := time.Now()
	if out := all[1].run("user", "disable", "bob"); !strings.Contains(out, "bob is disabled") {
		t.Error(out)
	}
	for i, ended := range open {
		over(t, "WebSocket at replica "+string(rune('0'+i)), began, ended)
	}
	for _, p := range all {
		if got := p.person().Get("/.merlon/login").Send("/.merlon/login", "name", "bob", "password", bobsPassword); got.SignedIn() != "" {
			t.Error("bob can log in")
		}
	}
	all[2].run("user", "enable", "bob")
	at(all[0], bob).Get("/").SentTo("/.merlon/login") // the old session stays ended
	all[0].in("bob", bobsPassword).Get("/").Want(200, "backend BOB-ID")
	if e := all[1].Events(t, 1, func(e ledger.Event) bool { return e.Kind == ledger.Admin && e.Name == "user_updated" }); e[0].Attrs["account"] != "bob" {
		t.Errorf("%+v", e)
	}
}

func codeOnce(t *testing.T, all []*place) {
	secret := addApp(t, all[0].in("ann", annsPassword))
	for round, step := range []int{0, 1} {
		// Each at a replica, all as far as the code.
		var pages []*harness.Page
		for i := range 6 {
			who := all[i%3].person()
			pages = append(pages, who.Get("/.merlon/login").Send("/.merlon/login", "name", "ann", "password", annsPassword).Want(200, "/.merlon/code"))
		}
		got := make([]bool, len(pages))
		c := code(t, secret, step)
		together(len(pages), func(i int) { got[i] = pages[i].Send("/.merlon/code", "code", c).SignedIn() != "" })
		if n := count(got, true); n != 1 {
			t.Errorf("round %d: %d of %d got in with one code", round, n, len(got))
		}
	}
	if e := all[0].Events(t, 0, harness.Reason("used-code")); len(e)+len(all[1].Events(t, 0, harness.Reason("used-code")))+len(all[2].Events(t, 0, harness.Reason("used-code"))) == 0 {
		t.Error("that a code was used twice is not recorded")
	}
}

func linkOnce(t *testing.T, all []*place) {
	out := all[0].run("user", "add", "carl", "--role", "team")
	link := linkText.FindString(out)
	u, err := url.Parse(link)
	if err != nil || u.Host == "" {
		t.Fatal(out, err)
	}
	passwords := []string{"orange kettle marble sunset 1", "purple kettle marble sunset 2", "yellow kettle marble sunset 3"}
	got := make([]*harness.Page, 3)
	for i, p := range all {
		got[i] = p.person().Get(u.RequestURI()).Want(200) // looking does not use it: mail systems look, too
	}
	together(3, func(i int) {
		if got[i] = got[i].Send("/.merlon/recover/link"); strings.Contains(got[i].Body, `action="/.merlon/password"`) {
			got[i] = got[i].Send("/.merlon/password", "new", passwords[i])
		}
	})
	in := make([]bool, 3)
	for i, p := range all {
		in[i] = p.person().Get("/.merlon/login").Send("/.merlon/login", "name", "carl", "password", passwords[i]).SignedIn() != ""
	}
	if count(in, true) != 1 {
		t.Errorf("passwords that hold: %v", in)
		for _, page := range got {
			t.Logf("%d\n%s", page.Status, page.Body)
		}
	}
	for _, p := range all {
		p.person().Get(u.RequestURI()).Want(404) // used up
	}
}
