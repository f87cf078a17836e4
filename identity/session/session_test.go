package session_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
)

var _ merlon.Prover = (*session.Manager)(nil)
var _ session.Accounts = account.Store(nil)

func TestBadSettings(t *testing.T) {
	for _, c := range []struct {
		config session.Config
		want   []string
	}{
		{session.Config{AtMost: -1}, []string{`at_most "-1": must be from 1 to 100`}},
		{session.Config{AtMost: 101}, []string{`at_most "101": must be from 1 to 100`}},
		{session.Config{Bind: []string{"agent", "asn"}}, []string{`bind[1] "asn": must be network or agent`}},
		{session.Config{Activity: "none"}, []string{`activity "none": must be person or any`}},
		{session.Config{AAL1: session.Limits{Absolute: 721 * time.Hour}, AAL3: session.Limits{Absolute: 13 * time.Hour}},
			[]string{`aal1.absolute "721h0m0s": must be from 1m to 720h0m0s`, `aal3.absolute "13h0m0s": must be from 1m to 12h0m0s`}},
		{session.Config{AAL2: session.Limits{Absolute: time.Second}}, []string{`aal2.absolute "1s"`}},
		{session.Config{AAL2: session.Limits{Absolute: -time.Hour}}, []string{`aal2.absolute "-1h0m0s"`}},
		{session.Config{AAL2: session.Limits{Idle: 25 * time.Hour}}, []string{`aal2.idle "25h0m0s": must be from 1m to the absolute limit, 24h0m0s`}},
		{session.Config{AAL2: session.Limits{Idle: time.Second}}, []string{`aal2.idle "1s"`}},
	} {
		_, err := session.New(c.config, session.NewMemory(0), &people{})
		if err == nil {
			t.Errorf("%+v is taken", c.config)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v\nwant %s", err, want)
			}
		}
	}
	if _, err := session.New(session.Config{}, nil, nil); err == nil {
		t.Error("a manager without stores")
	}
	// The idle default gives way to a shorter absolute limit.
	m, err := session.New(session.Config{AAL1: session.Limits{Absolute: time.Hour}}, session.NewMemory(0), &people{})
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
}

func TestDefaultLimits(t *testing.T) {
	for _, c := range []struct {
		name           string
		proof          session.Proof
		level          int
		idle, absolute time.Duration
	}{
		{"one factor", session.Proof{Methods: []string{"password"}}, 1, 24 * time.Hour, 720 * time.Hour},
		{"a provider", session.Proof{Methods: []string{"oidc:corp"}}, 1, 24 * time.Hour, 720 * time.Hour},
		{"two factors", session.Proof{Methods: []string{"password", "totp"}}, 2, time.Hour, 24 * time.Hour},
		{"a passkey", session.Proof{Methods: []string{"passkey"}}, 2, time.Hour, 24 * time.Hour},
		{"hardware", session.Proof{Methods: []string{"passkey"}, Level: 3}, 3, 15 * time.Minute, 12 * time.Hour},
	} {
		w := newWorld(t, session.Config{})
		c.proof.Account = "ann"
		s, _, err := w.m.Begin(request(), c.proof)
		if err != nil || s.Level != c.level || s.Expires.Sub(s.Created) != c.idle || s.Until.Sub(s.Created) != c.absolute {
			t.Errorf("%s: level %d, %v idle, %v at most: %v", c.name, s.Level, s.Expires.Sub(s.Created), s.Until.Sub(s.Created), err)
		}
	}
}

func TestIdentity(t *testing.T) {
	w := newWorld(t, session.Config{})
	s, c := w.begin("ann", "password", "totp")
	id := w.holds("a session", c)
	if id.Subject != "ann" || id.Name != "ann@shop.example" || !slices.Equal(id.Groups, []string{"staff"}) ||
		!slices.Equal(id.Roles, []string{"member"}) || !slices.Equal(id.Methods, []string{"password", "totp"}) ||
		!id.When.Equal(s.Proved) || id.Session != s.ID || id.Scopes != nil || id.Done == nil || isClosed(id.Done) {
		t.Errorf("%+v", id)
	}
	if strings.Contains(c.Value, s.ID) || s.ID == s.Hash.String() {
		t.Error("the session's name tells its id")
	}
	cur, err := w.m.Current(request(c))
	if err != nil || cur.ID != s.ID || cur.Agent == "" || cur.Client != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("%+v %v", cur, err)
	}
}

func TestProofsThatAreNone(t *testing.T) {
	w := newWorld(t, session.Config{})
	_, c := w.begin("ann")
	w.people.change("bob", func(a *account.Account) { a.Disabled = true })
	for _, p := range []session.Proof{
		{}, {Account: "ann"}, {Methods: []string{"password"}}, {Account: "ann", Methods: []string{"password"}, Level: 4},
		{Account: "ann", Methods: []string{"password"}, Level: -1}, {Account: "nobody", Methods: []string{"password"}},
		{Account: "bob", Methods: []string{"password"}},
	} {
		if _, _, err := w.m.Begin(request(), p); err == nil {
			t.Errorf("begun with %+v", p)
		}
		if _, _, err := w.m.StepUp(request(c), p); err == nil {
			t.Errorf("stepped up with %+v", p)
		}
	}
}

func TestStepUp(t *testing.T) {
	for _, c := range []struct {
		name      string
		had, with []string
		want      []string
		level     int
		fresh     bool
	}{
		{"the same again", []string{"password"}, []string{"password"}, []string{"password"}, 1, true},
		{"a second factor alone is as fresh as the first", []string{"password"}, []string{"totp"}, []string{"password", "totp"}, 2, false},
		{"both", []string{"password"}, []string{"password", "totp"}, []string{"password", "totp"}, 2, true},
		{"a passkey", []string{"password"}, []string{"passkey"}, []string{"passkey"}, 2, true},
		{"trap 47: a weaker factor does not freshen", []string{"passkey"}, []string{"password"}, []string{"passkey", "password"}, 2, false},
		{"trap 47: other factors do not keep the passkey", []string{"passkey"}, []string{"password", "totp"}, []string{"password", "totp"}, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, session.Config{})
			_, cookie := w.begin("ann", c.had...)
			w.clock.add(30 * time.Minute)
			s, cookie := w.stepUp(cookie, c.with...)
			if !slices.Equal(s.Methods, c.want) || s.Level != c.level || s.Fresh(5*time.Minute, w.clock.Now()) != c.fresh {
				t.Errorf("%v, level %d, proved %v", s.Methods, s.Level, s.Proved)
			}
			if id := w.holds("after", cookie); !slices.Equal(id.Methods, c.want) || !id.When.Equal(s.Proved) {
				t.Errorf("%v at %v", id.Methods, id.When)
			}
		})
	}
	t.Run("trap 47: another's proof is none", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, c := w.begin("ann")
		if _, _, err := w.m.StepUp(request(c), session.Proof{Account: "bob", Methods: []string{"passkey"}}); err == nil {
			t.Error("bob stepped ann's session up")
		}
	})
	t.Run("a password change that ends all others", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, mine := w.begin("ann")
		_, other := w.begin("ann")
		w.clock.add(time.Minute)
		s, next := w.stepUp(mine, "password")
		w.people.change("ann", func(a *account.Account) { a.ValidFrom = s.Proved })
		w.m.Forget("ann")
		w.refuses("its old id", request(mine), session.Ended)
		w.holds("its own", next)
		w.refuses("the other", request(other), session.Ended)
	})
}

func TestFresh(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		age  time.Duration
		want bool
	}{{0, true}, {5 * time.Minute, true}, {5*time.Minute + 1, false}, {-time.Minute, true}, {-2 * time.Minute, false}} {
		if got := (session.Session{Proved: now.Add(-c.age)}).Fresh(5*time.Minute, now); got != c.want {
			t.Errorf("proved %v ago: %v", c.age, got)
		}
	}
}

func TestBoundToSiteNetworkAndAgent(t *testing.T) {
	from := func(c *http.Cookie, addr, agent string) *merlon.Request {
		r := request(c)
		r.Client = netip.MustParseAddr(addr)
		if agent != "" {
			r.Header.Set("User-Agent", agent)
		}
		return r
	}
	const next = "Mozilla/5.0 (X11; Linux x86_64; rv:151.0) Gecko/20100101 Firefox/151.0"
	const curl = "curl/8.11.0"
	bound := newWorld(t, session.Config{Bind: []string{"network", "agent"}})
	_, c := bound.begin("ann")
	for _, x := range []struct {
		addr, agent string
		want        bool
	}{
		{"192.0.2.7", "", true}, {"192.0.2.200", "", true}, {"::ffff:192.0.2.8", "", true}, {"192.0.3.7", "", false},
		{"2001:db8::1", "", false}, {"192.0.2.7", next, true}, {"192.0.2.7", curl, false},
	} {
		_, err := bound.m.Prove(from(c, x.addr, x.agent))
		if e, ok := errors.AsType[*session.Error](err); (err == nil) != x.want || err != nil && (!ok || e.Reason != session.Elsewhere) {
			t.Errorf("from %s %s: %v", x.addr, x.agent, err)
		}
	}
	bound.holds("its owner stays", c)

	free := newWorld(t, session.Config{})
	_, c = free.begin("ann")
	if _, err := free.m.Prove(from(c, "2001:db8::1", curl)); err != nil {
		t.Errorf("by default: %v", err)
	}
	elsewhere := request(c)
	elsewhere.Site = "other.example"
	free.refuses("on another site", elsewhere, session.Elsewhere)
}

func TestListsAndEnds(t *testing.T) {
	w := newWorld(t, session.Config{AtMost: 3})
	var ids []session.Session
	var cookies []*http.Cookie
	for range 4 {
		w.clock.add(time.Second)
		s, c := w.begin("ann")
		ids, cookies = append(ids, s), append(cookies, c)
	}
	bobs, bob := w.begin("bob")
	w.refuses("the oldest", request(cookies[0]), session.Ended)
	list, err := w.m.List(t.Context(), "ann")
	if err != nil || len(list) != 3 || list[0].ID != ids[3].ID || list[2].ID != ids[1].ID {
		t.Fatalf("%+v %v", list, err)
	}
	if err := w.m.EndOne(t.Context(), "ann", bobs.ID); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("ann ended bob's session: %v", err)
	}
	if err := w.m.EndOne(t.Context(), "ann", ""); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("one without a name: %v", err)
	}
	holds := func(account, id string) bool {
		ok, err := w.m.Holds(t.Context(), account, id)
		if err != nil {
			t.Error(err)
		}
		return ok
	}
	if !holds("ann", ids[1].ID) || holds("ann", ids[0].ID) || holds("bob", ids[1].ID) || holds("ann", "") {
		t.Error("what holds is told wrongly")
	}
	if err := w.m.EndOne(t.Context(), "ann", ids[1].ID); err != nil {
		t.Error(err)
	}
	if holds("ann", ids[1].ID) {
		t.Error("trap 49: a token may outlive its session")
	}
	w.refuses("that one", request(cookies[1]), session.Ended)
	if n, err := w.m.EndAll(t.Context(), "ann", ids[3].ID); n != 1 || err != nil {
		t.Errorf("%d ended: %v", n, err)
	}
	w.refuses("all others", request(cookies[2]), session.Ended)
	w.holds("but one", cookies[3])
	if n, err := w.m.EndAll(t.Context(), "ann", ""); n != 1 || err != nil {
		t.Errorf("%d ended: %v", n, err)
	}
	w.refuses("everywhere", request(cookies[3]), session.Ended)
	w.holds("bob", bob)
	w.clock.add(25 * time.Hour)
	if list, err := w.m.List(t.Context(), "bob"); err != nil || len(list) != 0 {
		t.Errorf("what is idle is listed: %+v %v", list, err)
	}
}

func TestLogOutByProvider(t *testing.T) {
	w := newWorld(t, session.Config{})
	begin := func(issuer, subject, sid string) *http.Cookie {
		_, c, err := w.m.Begin(request(), session.Proof{Account: "ann", Methods: []string{"oidc:corp"}, Issuer: issuer, Subject: subject, SID: sid})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	one, two, other := begin("https://a", "7", "x"), begin("https://a", "7", "y"), begin("https://b", "7", "x")
	_, own := w.begin("ann")
	if _, err := w.m.EndByProvider(t.Context(), "https://a", "", ""); err == nil {
		t.Error("a log-out of nobody")
	}
	if _, err := w.m.EndByProvider(t.Context(), "", "7", "x"); err == nil {
		t.Error("a log-out by nobody")
	}
	if n, err := w.m.EndByProvider(t.Context(), "https://a", "", "x"); n != 1 || err != nil {
		t.Errorf("%d ended: %v", n, err)
	}
	w.refuses("its session", request(one), session.Ended)
	w.holds("another session of its", two)
	if n, err := w.m.EndByProvider(t.Context(), "https://a", "7", ""); n != 1 || err != nil {
		t.Errorf("%d ended: %v", n, err)
	}
	w.refuses("its subject", request(two), session.Ended)
	w.holds("another provider's", other)
	w.holds("ours", own)
}

func TestStoresThatFail(t *testing.T) {
	down := errors.New("down")
	w := withRealClock(t, session.Config{})
	_, c := w.begin("ann")
	w.holds("before", c)
	w.store.setErr(down)
	w.holds("what was read just now", c)
	time.Sleep(1100 * time.Millisecond)
	w.refuses("a second later", request(c), session.Unavailable)
	if _, _, err := w.m.Begin(request(), session.Proof{Account: "ann", Methods: []string{"password"}}); !errors.Is(err, down) {
		t.Errorf("a log-in: %v", err)
	}
	if err := w.m.End(request(c)); !errors.Is(err, down) {
		t.Errorf("a log-out that did not happen: %v", err)
	}
	w.store.setErr(nil)
	w.holds("when it is back", c)

	w.people.mu.Lock()
	w.people.fail = down
	w.people.mu.Unlock()
	w.m.Forget("ann")
	w.refuses("no accounts", request(c), session.Unavailable)
	if _, _, err := w.m.Begin(request(), session.Proof{Account: "ann", Methods: []string{"password"}}); !errors.Is(err, down) {
		t.Errorf("a log-in without accounts: %v", err)
	}
	w.people.mu.Lock()
	w.people.fail = nil
	w.people.mu.Unlock()
	w.holds("when they are back", c)
}

func TestOpenConnections(t *testing.T) {
	down := errors.New("down")
	synctest.Test(t, func(t *testing.T) {
		w := withRealClock(t, session.Config{})
		s, c := w.begin("ann")
		prove := func() (*merlon.Identity, func()) {
			r, leave := open(c)
			id, err := w.m.Prove(r)
			if err != nil {
				t.Fatal(err)
			}
			return id, leave
		}
		// A store that does not answer for a while cuts nobody off.
		id, leave := prove()
		w.store.setErr(down)
		time.Sleep(20 * time.Second)
		if isClosed(id.Done) {
			t.Fatal("closed after 20 seconds of silence")
		}
		w.store.setErr(nil)
		time.Sleep(time.Second)
		w.store.setErr(down)
		began := time.Now()
		<-id.Done
		if took := time.Since(began); took < 25*time.Second || took > 35*time.Second {
			t.Errorf("closed after %v of silence, want about 30s", took)
		}
		w.store.setErr(nil)
		leave()

		// Roles that change make it ask again.
		id, leave = prove()
		w.people.change("ann", func(a *account.Account) { a.Groups = nil })
		began = time.Now()
		<-id.Done
		if took := time.Since(began); took > time.Second {
			t.Errorf("closed %v after the groups changed", took)
		}
		leave()

		// An end that nobody tells of.
		id, leave = prove()
		if _, err := w.store.End(t.Context(), session.Where{Account: "ann", ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		<-id.Done
		if took := time.Since(began); took > time.Second {
			t.Errorf("closed %v after the end", took)
		}
		leave()
		time.Sleep(2 * time.Second)
		if n := w.m.Live(); n != 0 {
			t.Errorf("%d sessions are known although nobody uses them", n)
		}
		w.shut()
	})
}

func TestCloseWaitsForTheLastConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := withRealClock(t, session.Config{})
		s, c := w.begin("ann")
		r, leave := open(c)
		id, err := w.m.Prove(r)
		if err != nil {
			t.Fatal(err)
		}
		w.m.Close()
		time.Sleep(10 * time.Second)
		if isClosed(id.Done) {
			t.Fatal("a reload closed the connection")
		}
		if _, err := w.store.End(t.Context(), session.Where{Account: "ann", ID: s.ID}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if !isClosed(id.Done) {
			t.Error("nobody watches any more")
		}
		w.shut(leave)
	})
}

func TestManyAtOnceReadOnce(t *testing.T) {
	w := withRealClock(t, session.Config{})
	_, c := w.begin("ann")
	w.store.slow = 50 * time.Millisecond
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := w.m.Prove(request(c)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := w.store.gets.Load(); n > 2 {
		t.Errorf("the store was asked %d times", n)
	}
}

func TestWhatIsKnownIsBounded(t *testing.T) {
	w := withRealClock(t, session.Config{AtMost: 100})
	hr := httptest.NewRequest(http.MethodGet, "https://shop.example/", nil)
	for i := range 3000 { // ids that nobody has
		hr.Header.Set("Cookie", fmt.Sprintf("%s=%s%04dA", session.Cookie, strings.Repeat("A", 38), i))
		if _, err := w.m.Prove(merlon.NewRequest(hr)); err == nil {
			t.Fatal("it proves somebody")
		}
	}
	if n := w.m.Live(); n > 64 {
		t.Errorf("%d are known", n)
	}
}
