package people_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

// Trap 45: who may log in from where, whatever a client writes about it.
func TestLogInFromListedAddressesOnly(t *testing.T) {
	t.Parallel()
	p := open(t, "# insecure\noff: [waf]\ntrusted_proxies: [127.0.0.1, 10.0.0.1]\nidentity:\n  attempts: {account: {free: 1000}}\n  basic: {}\n  login:\n    - {users: [ann], from: [10.8.0.0/16, '2001:db8:1::/48']}\n    - {groups: [bobs]}\n"+cheap+requireLogin)
	logIn := func(name, pass string, forwarded ...string) *harness.Page {
		t.Helper()
		who := p.person()
		if len(forwarded) > 0 {
			who.Head["X-Forwarded-For"] = forwarded
		}
		return who.Get("/.merlon/login").Want(200).Send("/.merlon/login", "name", name, "password", pass)
	}
	for from, in := range map[string]bool{
		"10.8.3.4":                 true,
		"::ffff:10.8.3.4":          true, // mapped
		"2001:db8:1:2::7":          true,
		"10.8.3.4, 10.0.0.1":       true,  // through both proxies
		"10.9.3.4":                 false, // not listed
		"::ffff:10.9.3.4":          false,
		"2001:db8:2::7":            false,
		"10.8.3.4, 203.0.113.9":    false, // what stands before the stranger's address is the stranger's invention
		"10.8.3.4,unknown":         false,
		"10.8.3.4, 203.0.113.9:44": false,
		"64:ff9b::a08:304":         false, // NAT64 of 10.8.3.4: written as it is, or not at all
	} {
		got := logIn("ann", annsPassword, from)
		if (got.SignedIn() != "") != in {
			t.Errorf("X-Forwarded-For %q: %d, in: %v", from, got.Status, got.SignedIn() != "")
		}
	}
	if got := logIn("ann", annsPassword, "10.8.3.4", "203.0.113.9"); got.SignedIn() != "" {
		t.Error("a second X-Forwarded-For is not read")
	}
	if got := logIn("bob", bobsPassword, "203.0.113.9"); got.SignedIn() == "" {
		t.Error("bob may log in from anywhere")
	}

	// The right password from elsewhere looks like a wrong one, and is not
	// recorded as one.
	changing := regexp.MustCompile(`nonce="[^"]*"|name="csrf" value="[^"]*"|[A-Z2-7]{26}`)
	page := func(g *harness.Page) string {
		head := fmt.Sprint(g.Status)
		for _, field := range []string{"Content-Type", "Set-Cookie", "Location", "Retry-After", "Clear-Site-Data", "Www-Authenticate"} {
			head += "\n" + field + ": " + strings.Join(g.Header.Values(field), "|")
		}
		return changing.ReplaceAllString(head+"\n"+g.Body, "")
	}
	right, wrong := logIn("ann", annsPassword, "203.0.113.50"), logIn("ann", "not my password", "203.0.113.51")
	if a, b := page(right), page(wrong); a != b {
		t.Errorf("the right password looks like this:\n%s\nand a wrong one like this:\n%s", a, b)
	}
	who := p.person()
	rightBasic := who.Program("GET", "/", "Authorization", basic("ann", annsPassword), "X-Forwarded-For", "203.0.113.50")
	wrongBasic := who.Program("GET", "/", "Authorization", basic("ann", "not my password"), "X-Forwarded-For", "203.0.113.51")
	if a, b := page(rightBasic), page(wrongBasic); a != b || rightBasic.Status != 401 {
		t.Errorf("by Basic:\n%s\nand\n%s", a, b)
	}
	who.Program("GET", "/", "Authorization", basic("ann", annsPassword), "X-Forwarded-For", "10.8.3.4").Want(200)
	for why, client := range map[string]string{"login-not-allowed-here": "203.0.113.50", "wrong-password": "203.0.113.51"} {
		list := p.Events(t, 2, func(e ledger.Event) bool {
			return e.Kind == ledger.Login && string(e.Reason) == why && e.Client == client
		})
		var by []string
		for _, e := range list {
			by = append(by, e.Attrs["by"])
		}
		slices.Sort(by)
		if strings.Join(by, " ") != "basic password" || list[0].Subject != "ANN-ID" || list[0].Attrs["user"] != "ann" {
			t.Errorf("%s: %+v", why, list)
		}
	}

	// A session that is carried elsewhere is none there, and still one at home.
	ann := p.person()
	ann.Head["X-Forwarded-For"] = []string{"10.8.3.4"}
	ann.SignIn("/.merlon/login", "ann", annsPassword)
	ann.Get("/").Want(200, "backend ANN-ID")
	ann.Head["X-Forwarded-For"] = []string{"203.0.113.9"}
	ann.Get("/").SentTo("/.merlon/login")
	ann.Head["X-Forwarded-For"] = []string{"10.8.3.4"}
	ann.Get("/").Want(200, "backend ANN-ID")
}

// Trap 45: a rule that changes holds for connections that are open.
func TestRulesChangeUnderOpenConnections(t *testing.T) {
	t.Parallel()
	const text = "off: [waf]\nidentity:\n  login: [{from: [127.0.0.1]}]\n" + cheap + requireLogin
	p := open(t, text)
	ann := p.in("ann", annsPassword)
	ann.Get("/").Want(200)
	write(t, p.config, strings.ReplaceAll(strings.Replace(text, "127.0.0.1]", "10.0.0.1]", 1), "BACKEND", p.backend.URL))
	for end := time.Now().Add(10 * time.Second); ann.Get("/").Status == 200; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the old rule goes on")
		}
	}
	ann.Get("/").SentTo("/.merlon/login")
	ann.Get("/", "X-Forwarded-For", "10.0.0.1", "Forwarded", "for=10.0.0.1").SentTo("/.merlon/login") // no proxy of ours said so
	write(t, p.config, strings.ReplaceAll(text, "BACKEND", p.backend.URL))
	for end := time.Now().Add(10 * time.Second); ann.Get("/").Status != 200; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the session did not survive")
		}
	}
}

// What administrators do holds in the running server within a second, and is
// recorded.
func TestAdministratorsBesideTheRunningServer(t *testing.T) {
	t.Parallel()
	p := open(t, "off: [waf]\nidentity:\n"+cheap+requireLogin)
	recorded := func(name, user string, more ...string) {
		t.Helper()
		e := p.Events(t, 1, func(e ledger.Event) bool {
			return e.Kind == ledger.Admin && e.Name == name && (e.Attrs["account"] == user) && (len(more) == 0 || strings.Contains(e.Message, more[0]))
		})
		if e[0].Attrs["by"] == "" || e[0].Attrs["via"] != "command line" {
			t.Errorf("%+v", e[0])
		}
	}

	ann := p.in("ann", annsPassword)
	open := webSocket(t, ann)
	time.Sleep(100 * time.Millisecond)
	began := time.Now()
	p.run("user", "disable", "ann")
	over(t, "a WebSocket of who is disabled", began, open)
	within(t, "the page", began, func() bool { return ann.Get("/").Status == 303 })
	if got := p.person().Get("/.merlon/login").Send("/.merlon/login", "name", "ann", "password", annsPassword); got.SignedIn() != "" {
		t.Error("who is disabled can log in")
	}
	recorded("user_updated", "ann", "disabled")
	p.run("user", "enable", "ann")
	recorded("user_updated", "ann", "enabled")
	ann = p.in("ann", annsPassword)

	// Reset: password and sessions are gone, and the link sets a new one.
	open = webSocket(t, ann)
	time.Sleep(100 * time.Millisecond)
	began = time.Now()
	out := p.run("user", "reset", "ann")
	over(t, "a WebSocket of whose password is reset", began, open)
	if got := p.person().Get("/.merlon/login").Send("/.merlon/login", "name", "ann", "password", annsPassword); got.SignedIn() != "" {
		t.Error("the password that was taken away is good")
	}
	recorded("user_updated", "ann", "reset")
	page := p.follow(p.person(), out).Send("/.merlon/recover/link").Want(200)
	page.Send("/.merlon/password", "new", nextPassword)
	p.in("ann", nextPassword).Get("/team/x").Want(200, "backend ANN-ID")

	// Added: the link makes the password, roles hold at once and when they change.
	out = p.run("user", "add", "dora", "--role", "team", "--group", "ops")
	dora := p.person()
	page = p.follow(dora, out).Send("/.merlon/recover/link").Want(200)
	page.Send("/.merlon/password", "new", "orange kettle marble sunset 1")
	recorded("user_created", "dora")
	dora = p.in("dora", "orange kettle marble sunset 1")
	dora.Get("/team/x").Want(200)
	began = time.Now()
	p.run("user", "set", "dora", "--role", "-team")
	within(t, "a role that was taken away", began, func() bool { return dora.Get("/team/x").Status == 403 })
	dora.Get("/").Want(200)
	p.run("user", "delete", "dora", "--yes")
	within(t, "the end of a deleted account", time.Now(), func() bool { return dora.Get("/").Status == 303 })

	if out, code := p.Run(t, "events", "verify"); code != 0 {
		t.Errorf("two processes wrote, and the log does not hold together: %s", out)
	}
}

// follow opens the link that a command has printed.
func (p *place) follow(who *harness.Person, out string) *harness.Page {
	p.t.Helper()
	link := linkText.FindString(out)
	_, path, ok := strings.Cut(strings.TrimPrefix(link, "https://"), "/")
	if !ok {
		p.t.Fatalf("no link in %q", out)
	}
	return who.Get("/" + path).Want(200)
}
