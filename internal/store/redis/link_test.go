package redis_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/redistest"
)

func link(t *testing.T, at string) *redis.Link {
	t.Helper()
	l, err := redis.Open(t.Context(), secrets.New(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// A server that is not there when a process starts is used as soon as it is.
func TestLinkToAServerThatComesLater(t *testing.T) {
	srv, at := redistest.OnSocket(t)
	redistest.Dial(t, at)
	srv.Kill()
	began := time.Now()
	l := link(t, at)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a start waits %v", took)
	}
	if c, err := l.Client(); err == nil || c != nil || !has(err.Error(), "connect") {
		t.Errorf("of a server that is down: %v %v", c, err)
	}
	srv.Run(t)
	redistest.Eventually(t, "it is there", func() bool { _, err := l.Client(); return err == nil })
	c, err := l.Client()
	if err != nil {
		t.Fatal(err)
	}
	redistest.Do(t, c, "PING")
	// From then on the client itself looks for it.
	srv.Kill()
	srv.Run(t)
	redistest.Eventually(t, "it is there again", func() bool {
		return c.Do(t.Context(), c.B().Ping().Build()).Error() == nil
	})
	if same, err := l.Client(); err != nil || same != c {
		t.Errorf("another client: %v", err)
	}
}

// What waiting does not mend is told at the start.
func TestLinkThatIsRefused(t *testing.T) {
	at := redistest.WithTLS(t, strings.Fields(redis.Rights)...)
	redistest.Dial(t, at)
	host, _, _ := strings.Cut(at, "?ca=")
	clear := redistest.FreePort(t)
	redistest.Start(t, "--port", clear, "--bind", "127.0.0.1")
	redistest.Dial(t, "redis://127.0.0.1:"+clear)
	for name, at := range map[string]string{
		"a wrong password":           strings.Replace(at, "s3cret", "s3crets", 1),
		"an authority of its own":    host,
		"a user where there is none": "redis://merlon:s3cret@127.0.0.1:" + clear,
		"a database too many":        "redis://127.0.0.1:" + clear + "/99",
		"no URL":                     "s3cret",
	} {
		began := time.Now()
		l, err := redis.Open(t.Context(), secrets.New(at))
		if err == nil {
			l.Close()
			t.Errorf("%s: it is waited for", name)
		} else if has(err.Error(), "s3cret") || time.Since(began) > 2*time.Second {
			t.Errorf("%s: after %v: %v", name, time.Since(began), err)
		}
	}
}

// A Link that was closed connects no more.
func TestClosedLink(t *testing.T) {
	srv, at := redistest.OnSocket(t)
	redistest.Dial(t, at)
	srv.Kill()
	l := link(t, at)
	l.Close()
	l.Close()
	srv.Run(t)
	c := redistest.Dial(t, at)
	time.Sleep(time.Second)
	if _, err := l.Client(); err == nil {
		t.Error("it has connected")
	}
	list, err := c.Do(t.Context(), c.B().ClientList().Build()).ToString()
	if n := strings.Count(list, "lib-name=rueidis"); err != nil || n > 3 { // those of the test itself
		t.Errorf("%d connections: %v\n%s", n, err, list)
	}
	if err := redis.Check(secrets.New("rediss://h:1?ca=" + filepath.Join(t.TempDir(), "none.pem"))); err == nil {
		t.Error("authorities that are not there")
	}
}
