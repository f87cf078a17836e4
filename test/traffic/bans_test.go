package traffic_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

// attack is what the WAF refuses in any parameter.
const attack = "/search?q=1%27+OR+%271%27%3D%271%27+UNION+SELECT+name,+password+FROM+users--"

const banning = `
ban: {strikes: 5, errors: 15, within: 1h, first: 1h, longest: 24h, allow: [127.0.30.9], lists: [LIST]}
identity:
  password: {argon2: {memory: 12MiB, time: 3}}
sites:
  - {host: localhost, upstream: BACKEND, routes: [{path: /in/**, require: login}]}
`

// A house is a place with bans, and a file of banned addresses.
type house struct {
	*place
	list string
}

func (h *house) status(addr, path string) int {
	h.t.Helper()
	return h.from(addr).get(path).Status
}

// misbehave attacks from an address until it is banned, and returns how often
// that took.
func (h *house) misbehave(a *asker) int {
	h.t.Helper()
	for n := 1; n <= 20; n++ {
		a.get(attack).want(h.t, "an attack", 403)
		if a.get("/").Status == http.StatusForbidden {
			return n
		}
	}
	h.t.Error("20 attacks, and nobody is banned")
	return 0
}

func TestBans(t *testing.T) {
	t.Parallel()
	list := filepath.Join(t.TempDir(), "list.txt")
	write(t, list, "# of somebody else\n127.0.30.70 ; a scanner\n127.0.31.0/24\n")
	data := t.TempDir()
	seed(t, store.Config{Dir: data}, people(t)...)
	p := &place{t: t, config: filepath.Join(t.TempDir(), "merlon.yaml")}
	backendURL := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/missing/") {
			http.NotFound(w, r)
			return
		}
		hello(w, r)
	}).URL
	write(t, p.config, strings.NewReplacer("BACKEND", backendURL, "LIST", list).Replace(banning))
	p.Merlon = harness.Serve(t, harness.Options{Data: data}, "-c", p.config)
	h := &house{p, list}
	for _, c := range []struct {
		name string
		test func(*testing.T, *house)
	}{
		{"an address that attacks is banned, and no other", addressBanned},
		{"who is signed in answers for themselves", signedInPass},
		{"a user that attacks is banned, wherever they are", userBanned},
		{"who looks for what is not there is banned", lookingAround},
		{"what is allowed is never banned", allowedStay},
		{"bans by hand", byHand},
		{"a list is read again when it changes", listed},
		{"a decoy is enough", decoy},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.t = t
			c.test(t, h)
		})
	}
}

func addressBanned(t *testing.T, h *house) {
	a := h.from("127.0.30.3")
	n := h.misbehave(a)
	if n != 6 {
		t.Errorf("banned after %d attacks, want 6", n)
	}
	for _, path := range []string{"/", "/in/x", "/.merlon/login", "/search?q=ok"} {
		got := a.get(path)
		got.want(t, "of a banned address "+path, 403)
		if strings.Contains(got.Body, "hello") {
			t.Error(got.Body)
		}
	}
	if got := h.status("127.0.30.4", "/"); got != 200 {
		t.Errorf("its neighbour: %d", got)
	}
	if e := h.Events(t, 1, harness.Reason("banned")); len(e) > 0 && (e[0].Kind != ledger.Refusal || e[0].Client != "127.0.30.3") {
		t.Errorf("%+v", e[0])
	}
	if out := h.run("ban", "list"); !strings.Contains(out, "127.0.30.3") || strings.Contains(out, "127.0.30.4") {
		t.Errorf("merlon ban list:\n%s", out)
	}
	h.run("ban", "lift", "127.0.30.3")
	eventually(t, "lifted", func() bool { return a.get("/").Status == 200 })
	// The next one comes as it did before.
	h.misbehave(a)
}

// person is somebody at an address.
func (p *place) person(addr string) *harness.Person {
	p.t.Helper()
	who := harness.NewPerson(p.t, p.base())
	harness.From(who.HTTP, addr, p.HTTPS)
	return who
}

func signedInPass(t *testing.T, h *house) {
	const addr = "127.0.30.13"
	who := h.person(addr)
	who.SignIn("/.merlon/login", userName(0), somebodysPassword)
	who.Get("/in/x").Want(200)
	h.misbehave(h.from(addr)) // somebody else behind the same address
	who.Get("/in/x").Want(200)
	key := h.key("from a banned address", 1)
	a := h.from(addr)
	a.get("/in/x", "Authorization", key).want(t, "with a key", 200)
	a.get("/in/x", "Authorization", key[:len(key)-2]+"xx").want(t, "with a wrong key", 401)
	a.get("/", "Cookie", "__Host-merlon="+strings.Repeat("A", 43)).want(t, "with a made-up session", 403)
}

func userBanned(t *testing.T, h *house) {
	who := h.person("127.0.30.14")
	who.SignIn("/.merlon/login", userName(2), somebodysPassword)
	// A program of theirs, as a browser's own pages send no attacks.
	key := h.key("hostile", 2)
	a := h.from("127.0.30.15")
	banned := 0
	for n := 1; n <= 20 && banned == 0; n++ {
		a.get(attack, "Authorization", key).want(t, "an attack", 403)
		if a.get("/in/x", "Authorization", key).Status == 403 {
			banned = n
		}
	}
	if banned == 0 {
		t.Fatal("20 attacks, and the key is not banned")
	}
	if got := h.from("127.0.30.16").get("/in/x", "Authorization", key).Status; got != 403 {
		t.Errorf("from elsewhere: %d", got)
	}
	a.get("/").want(t, "others at the address", 200)
}

func lookingAround(t *testing.T, h *house) {
	a := h.from("127.0.30.17")
	banned := 0
	for n := 1; n <= 40 && banned == 0; n++ {
		if a.get(fmt.Sprintf("/missing/%d", n)).Status == 403 {
			banned = n
		}
	}
	if banned < 16 || banned > 18 {
		t.Errorf("banned at path %d, want 16 or soon after", banned)
	}
	// The same path again and again is a program that waits for it.
	a = h.from("127.0.30.18")
	for range 40 {
		a.get("/missing/one").want(t, "the same again", 404)
	}
	a.get("/").want(t, "who waits for something", 200)
}

func allowedStay(t *testing.T, h *house) {
	a := h.from("127.0.30.9")
	for range 20 {
		a.get(attack).want(t, "an attack", 403)
		a.get("/").want(t, "an address that is allowed", 200)
	}
	a.get("/.env").want(t, "a decoy", 404)
	a.get("/").want(t, "after a decoy", 200)
}

func byHand(t *testing.T, h *house) {
	h.run("ban", "add", "127.0.32.0/24", "--for", "1h", "--why", "a test")
	eventually(t, "banned by hand", func() bool { return h.status("127.0.32.77", "/") == 403 })
	if got := h.status("127.0.33.77", "/"); got != 200 {
		t.Errorf("outside the network: %d", got)
	}
	if out := h.run("ban", "list"); !strings.Contains(out, "127.0.32.0/24") || !strings.Contains(out, "a test") {
		t.Errorf("merlon ban list:\n%s", out)
	}
	h.run("ban", "lift", "127.0.32.0/24")
	eventually(t, "lifted by hand", func() bool { return h.status("127.0.32.77", "/") == 200 })
	list := h.Events(t, 2, func(e ledger.Event) bool { return e.Kind == ledger.Admin && strings.Contains(e.Name, "ban") })
	t.Logf("%d administrative events", len(list))
}

func listed(t *testing.T, h *house) {
	at := func(addr string, want int) {
		t.Helper()
		if got := h.status(addr, "/"); got != want {
			t.Errorf("%s: %d, want %d", addr, got, want)
		}
	}
	at("127.0.30.70", 403)
	at("127.0.31.200", 403)
	at("127.0.30.71", 200)
	write(t, h.list, "127.0.30.71\n")
	eventually(t, "the new list", func() bool { return h.status("127.0.30.71", "/") == 403 })
	at("127.0.30.70", 200)
	// One that cannot be used changes nothing.
	write(t, h.list, "127.0.30.72\nnot an address\n")
	time.Sleep(2500 * time.Millisecond)
	at("127.0.30.71", 403)
	at("127.0.30.72", 200)
	write(t, h.list, "")
	eventually(t, "an empty list", func() bool { return h.status("127.0.30.71", "/") == 200 })
}

func decoy(t *testing.T, h *house) {
	a := h.from("127.0.30.80")
	a.get("/environment").want(t, "what is no decoy", 200)
	a.get("/.env").want(t, "a decoy", 404)
	eventually(t, "banned for a decoy", func() bool { return a.get("/").Status == 403 })
	if e := h.Events(t, 1, harness.Reason("decoy-touched")); len(e) > 0 && (e[0].Guard != "decoy" || e[0].Status != 404) {
		t.Errorf("%+v", e[0])
	}
	if got := h.status("127.0.30.81", "/"); got != 200 {
		t.Errorf("its neighbour: %d", got)
	}
	// A page of somebody else that has it as a picture bans nobody.
	b := h.from("127.0.30.82")
	b.get("/.env", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image").want(t, "as a picture", 404)
	b.get("/").want(t, "who has looked at such a page", 200)
}
