package live_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/session/sessiontest"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/redistest"
)

func has(text, part string) bool { return strings.Contains(text, part) }

// replicas returns a function that empties the server and opens it twice.
func replicas(at string) sessiontest.Open {
	return func(t *testing.T) (one, other session.Store) {
		c, d := redistest.Dial(t, at), redistest.Dial(t, at)
		for _, node := range c.Nodes() {
			if err := node.Do(t.Context(), node.B().Flushall().Build()).Error(); err != nil && !has(err.Error(), "NOPERM") {
				t.Fatal(err)
			}
		}
		return live.NewSessions(live.Connected(c)), live.NewSessions(live.Connected(d))
	}
}

func contract(t *testing.T, at string) {
	sessiontest.TestStore(t, replicas(at))
	t.Run("watch", func(t *testing.T) { sessiontest.TestWatch(t, replicas(at)) })
}

func TestSessions(t *testing.T) {
	_, at := redistest.OnSocket(t)
	contract(t, at)
}

func TestReplicas(t *testing.T) {
	_, at := redistest.OnSocket(t)
	sessiontest.TestReplicas(t, replicas(at))
}

func TestSessionsInMiniredis(t *testing.T) {
	m := miniredis.RunT(t)
	contract(t, "redis://"+m.Addr())
}

func TestSessionsOverTLSWithFewRights(t *testing.T) {
	at := redistest.WithTLS(t, append(strings.Fields(live.SessionRights), "+flushall")...)
	contract(t, at)
	// Another's keys are out of reach.
	c := redistest.Dial(t, at)
	if err := c.Do(t.Context(), c.B().Get().Key("else").Build()).Error(); err == nil || !has(err.Error(), "NOPERM") {
		t.Errorf("another's key can be read: %v", err)
	}
	if _, err := redis.Dial(secrets.New(strings.Replace(at, "s3cret", "wrong", 1))); err == nil || has(err.Error(), "wrong@") {
		t.Errorf("a wrong password: %v", err)
	}
	noCA, _, _ := strings.Cut(at, "?")
	if _, err := redis.Dial(secrets.New(noCA)); err == nil {
		t.Error("a certificate that nobody vouches for is taken")
	}
}

func TestSessionsInACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	contract(t, redistest.Cluster(t))
}

func TestSessionsBySentinel(t *testing.T) {
	c := redistest.Dial(t, redistest.Sentinel(t))
	store := live.NewSessions(live.Connected(c))
	s := sessiontest.New("ann", time.Now())
	if _, err := store.Put(t.Context(), s, 10); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Get(t.Context(), s.Hash); err != nil || got.ID != s.ID {
		t.Errorf("%+v %v", got, err)
	}
}

// Trap 49: neither the id nor anything that can be made into one is in there.
func TestNoIDIsStored(t *testing.T) {
	_, at := redistest.OnSocket(t)
	c := redistest.Dial(t, at)
	m, accounts := manager(t, live.NewSessions(live.Connected(c)))
	_, cookie := begin(t, m, accounts, "ann")
	dump := everything(t, c)
	if !has(dump, "ann") {
		t.Fatal("the dump is not one")
	}
	raw := decodeID(t, cookie.Value)
	for _, text := range []string{cookie.Value, string(raw), hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw)} {
		if has(dump, text) {
			t.Errorf("%q is in there", text)
		}
	}
}

// everything returns every key and value.
func everything(t *testing.T, c rueidis.Client) string {
	t.Helper()
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(k + "\n")
		if v, err := c.Do(t.Context(), c.B().Get().Key(k).Build()).ToString(); err == nil {
			b.WriteString(v + "\n")
		}
		if m, err := c.Do(t.Context(), c.B().Hgetall().Key(k).Build()).AsStrMap(); err == nil {
			for f, v := range m {
				b.WriteString(f + " " + v + "\n")
			}
		}
		if l, err := c.Do(t.Context(), c.B().Smembers().Key(k).Build()).AsStrSlice(); err == nil {
			b.WriteString(strings.Join(l, "\n") + "\n")
		}
	}
	return b.String()
}

func TestKeysExpireWithTheirLastSession(t *testing.T) {
	_, at := redistest.OnSocket(t)
	c := redistest.Dial(t, at)
	store := live.NewSessions(live.Connected(c))
	long, short := sessiontest.New("ann", time.Now()), sessiontest.New("ann", time.Now())
	long.Issuer, long.Subject, long.SID = "https://idp.example", "1", "2"
	short.Issuer, short.Subject, short.SID = "https://idp.example", "1", "2"
	short.Until, short.Expires = time.Now().Add(time.Minute).UTC(), time.Now().Add(time.Minute).UTC()
	for _, s := range []session.Session{long, short} {
		if _, err := store.Put(t.Context(), s, 10); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 5 {
		t.Fatalf("%d keys, want 5: %v", len(keys), err)
	}
	for _, k := range keys {
		left, err := c.Do(t.Context(), c.B().Pttl().Key(k).Build()).AsInt64()
		ttl := time.Duration(left) * time.Millisecond
		want := 24 * time.Hour
		if has(k, ":at:"+short.Hash.String()) {
			want = time.Minute
		}
		if err != nil || ttl > want+time.Second || ttl < want-30*time.Second {
			t.Errorf("%s lives %v, want %v", k, ttl, want)
		}
	}
}

func TestWhatHasExpiredTakesNoRoom(t *testing.T) {
	_, at := redistest.OnSocket(t)
	c := redistest.Dial(t, at)
	store := live.NewSessions(live.Connected(c))
	old, next := sessiontest.New("ann", time.Now().Add(-2*time.Hour)), sessiontest.New("ann", time.Now())
	for _, s := range []session.Session{old, next} {
		if _, err := store.Put(t.Context(), s, 10); err != nil {
			t.Fatal(err)
		}
	}
	if gone, err := store.Gone(t.Context(), []session.Hash{old.Hash, next.Hash}); err != nil || len(gone) != 1 {
		t.Errorf("%d are gone, want 1: %v", len(gone), err)
	}
}

func TestStoredNonsenseIsAnError(t *testing.T) {
	_, at := redistest.OnSocket(t)
	c := redistest.Dial(t, at)
	store := live.NewSessions(live.Connected(c))
	s := sessiontest.New("ann", time.Now())
	if _, err := store.Put(t.Context(), s, 10); err != nil {
		t.Fatal(err)
	}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*{*").Build()).AsStrSlice()
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	for _, c1 := range []struct{ field, value string }{
		{":t", "1 2 3"}, {":t", "a b c d e"}, {"", "{"}, {"", `{"level":"x"}`},
	} {
		redistest.Do(t, c, "HSET", keys[0], s.Hash.String()+c1.field, c1.value)
		if _, err := store.Get(t.Context(), s.Hash); err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("%q: %v", c1.value, err)
		}
		if _, err := store.List(t.Context(), "ann", time.Now()); err == nil {
			t.Errorf("%q is listed", c1.value)
		}
	}
}

// What is not known is not believed: beyond the second that a session is
// remembered for, a server that hangs or is gone lets nobody in.
func TestServerThatIsGone(t *testing.T) {
	srv, at := redistest.OnSocket(t)
	m, accounts := manager(t, live.NewSessions(live.Connected(redistest.Dial(t, at))))
	_, cookie := begin(t, m, accounts, "ann")
	prove := func() error {
		_, err := m.Prove(request(cookie))
		return err
	}
	if err := prove(); err != nil {
		t.Fatal(err)
	}
	srv.Signal(t, syscall.SIGSTOP)
	time.Sleep(1100 * time.Millisecond)
	began := time.Now()
	unavailable(t, "the server hangs", prove())
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a server that hangs holds a request for %v", took)
	}
	srv.Signal(t, syscall.SIGCONT)
	redistest.Eventually(t, "it goes on", func() bool { return prove() == nil })
	srv.Kill()
	time.Sleep(1100 * time.Millisecond)
	unavailable(t, "the server is dead", prove())
	srv.Run(t)
	redistest.Eventually(t, "it has forgotten everything", func() bool {
		e, ok := errors.AsType[*session.Error](prove())
		return ok && e.Reason == session.Ended
	})
}

// A watch that lost its server says so, or hears of what ends when it is back.
func TestWatchSurvivesItsServer(t *testing.T) {
	srv, at := redistest.OnSocket(t)
	store := live.NewSessions(live.Connected(redistest.Dial(t, at)))
	told := make(chan session.Hash, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // as the manager does
		for ctx.Err() == nil {
			_ = store.Watch(ctx, func() {}, func(hashes []session.Hash) { told <- hashes[0] })
			time.Sleep(50 * time.Millisecond)
		}
	}()
	hears := func() bool {
		s := sessiontest.New("ann", time.Now())
		if _, err := store.Put(t.Context(), s, 10); err != nil {
			return false
		}
		if _, err := store.End(t.Context(), session.Where{Account: "ann"}); err != nil {
			return false
		}
		select {
		case <-told:
			return true
		case <-time.After(200 * time.Millisecond):
			return false
		}
	}
	redistest.Eventually(t, "at first", hears)
	srv.Kill()
	srv.Run(t)
	redistest.Eventually(t, "after a restart", hears)
}

func unavailable(t *testing.T, why string, err error) {
	t.Helper()
	if e, ok := errors.AsType[*session.Error](err); !ok || e.Reason != session.Unavailable {
		t.Errorf("%s: %v", why, err)
	}
}

// deaf never hears of what others end.
type deaf struct{ session.Store }

func (deaf) Watch(ctx context.Context, _ func(), _ func([]session.Hash)) error {
	<-ctx.Done()
	return ctx.Err()
}

// Trap 49: an end on another replica holds within a second, for requests and
// for connections that are open, whether messages arrive or not.
func TestEndElsewhere(t *testing.T) {
	for _, c := range []struct {
		name   string
		deaf   bool
		within time.Duration
	}{
		{"told", false, 100 * time.Millisecond},
		{"not told", true, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, at := redistest.OnSocket(t)
			var store session.Store = live.NewSessions(live.Connected(redistest.Dial(t, at)))
			if c.deaf {
				store = deaf{store}
			}
			m, accounts := manager(t, store)
			other, _ := manager(t, live.NewSessions(live.Connected(redistest.Dial(t, at))))
			s, cookie := begin(t, m, accounts, "ann")
			r, leave := openRequest(cookie)
			defer leave()
			id, err := m.Prove(r)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond) // until it listens
			began := time.Now()
			if err := other.EndOne(t.Context(), "ann", s.ID); err != nil {
				t.Fatal(err)
			}
			select {
			case <-id.Done:
			case <-time.After(5 * time.Second):
			}
			took := time.Since(began)
			t.Logf("the connection was open for %v", took)
			if took > c.within+500*time.Millisecond { // this machine may be busy
				t.Error("that is too long")
			}
			if _, err := m.Prove(request(cookie)); err == nil {
				t.Error("the session holds")
			}
		})
	}
}
