package ban_test

import (
	"context"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/count"
)

// still is a store that stands still at first.
type still struct {
	*ban.Memory
	waits atomic.Int64 // for each List, in ns
}

func (s *still) List(ctx context.Context, have string) ([]ban.Ban, string, error) {
	time.Sleep(time.Duration(s.waits.Load()))
	return s.Memory.List(ctx, have)
}

// What others ban is heard within seconds also by one for whom the store has
// stood still for a moment.
func TestAStoreThatStoodStillIsHeardAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &still{Memory: ban.NewMemory()}
		s.waits.Store(int64(4 * time.Second))
		b := ban.NewBans(s, count.NewMemory(count.MemoryConfig{Keys: 8}), nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { b.Run(ctx); close(done) }()
		time.Sleep(5 * time.Second)
		s.waits.Store(0)
		now := time.Now()
		one := ban.Ban{Key: "client 192.0.2.1", Since: now, Until: now.Add(time.Hour), Times: 1, By: "root"}
		if _, err := s.Put(ctx, []ban.Ban{one}, ban.Most, now); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		g, err := ban.New(ban.Config{}, ban.Env{Bans: b})
		if err != nil {
			t.Fatal(err)
		}
		r := merlon.NewRequest(httptest.NewRequest("GET", "/", nil)) // from 192.0.2.1
		if d := g.Check(r); d.Reason != ban.Banned {
			t.Errorf("ten seconds later: %s", d.Reason)
		}
		cancel()
		<-done
	})
}
