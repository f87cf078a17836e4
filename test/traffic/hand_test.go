package traffic_test

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/harness"
)

const byHandOf = `
store: env:MERLON_STORE
key: env:MERLON_KEY
off: [waf]
sites:
  - {host: localhost, upstream: BACKEND, backend_login: {path: /login, user_field: email, failed: {status: 401}}}
  - {host: blog.localhost, upstream: BACKEND}
`

// What is done by hand beside two replicas, with bans in PostgreSQL or in Redis,
// holds at both; and while Redis is away, what needs it says so, and the rest goes on.
func TestByHandBesideReplicas(t *testing.T) {
	t.Parallel()
	for _, withRedis := range []bool{false, true} {
		name := "in PostgreSQL"
		if withRedis {
			name = "in Redis"
		}
		t.Run(name, func(t *testing.T) {
			db := harness.Postgres(t)
			seed(t, store.Config{URL: secrets.New(db)}, people(t)...)
			text, env := byHandOf, []string{"MERLON_STORE=" + db, "MERLON_KEY=" + strings.Repeat("0123456789", 5)}
			var srv *harness.RedisServer
			if withRedis {
				srv = harness.StartRedis(t)
				text, env = "redis: env:MERLON_REDIS\n"+text, append(env, "MERLON_REDIS="+srv.URL)
			}
			all := []*place{serve(t, text, guarded, env...), serve(t, text, guarded, env...)}
			bansByHand(t, all)
			if withRedis {
				forgiven(t, all)
				withoutRedis(t, all[0], srv)
			}
		})
	}
}

// guarded is a backend with a log-in of its own.
func guarded(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.FormValue("password") != "right" {
		w.WriteHeader(http.StatusUnauthorized)
	}
	hello(w, r)
}

func (p *place) statusAt(host, addr string) int {
	p.t.Helper()
	a := p.from(addr)
	a.host = host
	return a.get("/").Status
}

func bansByHand(t *testing.T, all []*place) {
	t.Helper()
	desk, other := all[0], all[1]
	desk.run("ban", "add", "127.0.60.0/24", "--site", "localhost", "--why", "a test")
	desk.run("ban", "add", "user:"+userName(0))
	other.from("127.0.61.1").get("/.env").want(t, "a decoy", 404)
	for _, p := range all {
		eventually(t, "what was banned by hand at one, and by the other", func() bool {
			return p.statusAt("localhost", "127.0.60.7") == 403 && p.statusAt("localhost", "127.0.61.1") == 403
		})
		if a, b := p.statusAt("blog.localhost", "127.0.60.7"), p.statusAt("localhost", "127.0.62.7"); a != 200 || b != 200 {
			t.Errorf("at another site %d, another address %d", a, b)
		}
	}
	list := desk.run("ban", "list")
	for _, want := range []string{"network 127.0.60.0/24  localhost", "client 127.0.61.1", "touched a decoy", "user:" + userName(0), "a test"} {
		if !strings.Contains(list, want) {
			t.Errorf("%q is not listed:\n%s", want, list)
		}
	}
	if got := desk.fails("ban", "lift", "127.0.60.7"); !strings.Contains(got, "is banned with all of network 127.0.60.0/24") {
		t.Error(got)
	}
	for _, who := range []string{"127.0.60.0/24", "127.0.61.1", "user:" + userName(0)} {
		other.run("ban", "lift", who)
	}
	for _, p := range all {
		eventually(t, "lifted", func() bool {
			return p.statusAt("localhost", "127.0.60.7") == 200 && p.statusAt("localhost", "127.0.61.1") == 200
		})
	}
	if list := desk.run("ban", "list"); strings.Count(list, "\n") != 1 {
		t.Errorf("still listed:\n%s", list)
	}
	for name, p := range map[string]*place{"ban_added": desk, "ban_lifted": other} {
		p.Events(t, 2, func(e ledger.Event) bool { return e.Kind == ledger.Admin && e.Name == name })
	}
}

// logIn tries to log in at the backend.
func (p *place) logIn(addr, password string) int {
	p.t.Helper()
	return p.from(addr).send(p.t.Context(), "POST", "/login", "email=ann&password="+password, "Content-Type", "application/x-www-form-urlencoded").Status
}

func forgiven(t *testing.T, all []*place) {
	t.Helper()
	for n := 0; all[0].logIn("127.0.63.1", "wrong") == http.StatusUnauthorized; n++ {
		if n == 100 {
			t.Fatal("nobody has to wait")
		}
	}
	for n := 0; all[0].logIn("127.0.63.2", "wrong") != http.StatusTooManyRequests; n++ {
		if n == 100 {
			t.Fatal("a stranger never has to wait")
		}
	}
	eventually(t, "a stranger waits at the other", func() bool { return all[1].logIn("127.0.63.3", "right") == http.StatusTooManyRequests })
	if got := all[1].run("ban", "forgive", "ann", "--site", "localhost"); !strings.Contains(got, "is forgotten") {
		t.Error(got)
	}
	eventually(t, "forgiven", func() bool { return all[0].logIn("127.0.64.1", "right") == 200 })
	if got := all[0].fails("ban", "forgive", "ann", "--site", "blog.localhost"); !strings.Contains(got, "blog.localhost has no backend_login") {
		t.Error(got)
	}
}

func withoutRedis(t *testing.T, p *place, srv *harness.RedisServer) {
	t.Helper()
	p.run("ban", "add", "127.0.65.1")
	eventually(t, "banned", func() bool { return p.statusAt("localhost", "127.0.65.1") == 403 })
	srv.Kill()
	for _, args := range [][]string{{"ban", "list"}, {"ban", "add", "127.0.65.2"}, {"ban", "lift", "127.0.65.1"}, {"ban", "forgive", "ann", "--site", "localhost"}} {
		if got := p.fails(args...); !strings.HasPrefix(got, "merlon: redis: ") {
			t.Errorf("%v: %s", args, got)
		}
	}
	if got := p.run("user", "list"); !strings.Contains(got, userName(0)) {
		t.Error(got)
	}
	if got := p.statusAt("localhost", "127.0.65.1"); got != 403 {
		t.Errorf("what is known does not hold on: %d", got)
	}
	// What it has forgotten comes back from who knows it.
	srv.Start()
	eventually(t, "the ban is back", func() bool {
		out, err := p.command("ban", "list").Output()
		return err == nil && strings.Contains(string(out), "127.0.65.1")
	})
}

// command is a subcommand with the place's configuration.
func (p *place) command(args ...string) *exec.Cmd {
	p.t.Helper()
	cmd := exec.Command(harness.Binary(p.t), append(args, "-c", p.config, "--data", p.Data)...)
	cmd.Env = append(cmd.Environ(), p.env...)
	return cmd
}

// fails runs a subcommand that must not succeed, and returns what it says.
func (p *place) fails(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err == nil {
		p.t.Errorf("%v: succeeds: %s", args, out)
	}
	return string(out)
}
