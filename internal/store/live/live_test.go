package live_test

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/session/sessiontest"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/test/redistest"
)

// As long as there is no server every question is an error, and nothing is
// taken for granted; as soon as there is one, it is asked.
func TestServerThatComesLater(t *testing.T) {
	none := errors.New("not yet")
	var there rueidis.Client
	link := func() (rueidis.Client, error) {
		if there == nil {
			return nil, none
		}
		return there, nil
	}
	sessions, tries, seen, kept, bans := live.NewSessions(link), live.NewTries(link).Patient(), live.NewSeen(link), live.NewKept(link), live.NewBans(link)
	ctx, now := t.Context(), time.Now()
	s := sessiontest.New("ann", now)
	one := ban.Ban{Key: "client 203.0.113.7", Since: now, Until: now.Add(time.Hour)}
	buckets := []attempts.Bucket{{Key: attempts.Key{1}, Schedule: attempts.Schedule{Free: 1, First: time.Hour, Longest: time.Hour, Forget: time.Hour}}}
	steps := []struct {
		name string
		do   func() error
	}{
		{"sessions.Put", func() error { _, err := sessions.Put(ctx, s, 10); return err }},
		{"sessions.Get", func() error { _, err := sessions.Get(ctx, s.Hash); return err }},
		{"sessions.Touch", func() error { return sessions.Touch(ctx, s.Hash, now, now.Add(time.Hour)) }},
		{"sessions.Find", func() error { _, err := sessions.Find(ctx, session.Where{Account: "ann"}); return err }},
		{"sessions.List", func() error { _, err := sessions.List(ctx, "ann", now); return err }},
		{"sessions.Gone", func() error { _, err := sessions.Gone(ctx, []session.Hash{s.Hash}); return err }},
		{"sessions.Rotate", func() error {
			n := s
			n.Hash[0]++
			return sessions.Rotate(ctx, s.Hash, now.Add(time.Minute), n)
		}},
		{"sessions.End", func() error { _, err := sessions.End(ctx, session.Where{Account: "ann"}); return err }},
		{"tries.Reserve", func() error { _, err := tries.Reserve(ctx, buckets, now); return err }},
		{"tries.Refund", func() error { return tries.Refund(ctx, []attempts.Refund{{Key: buckets[0].Key, All: true}}, now) }},
		{"seen.First", func() error {
			first, err := seen.First(ctx, "a state", now.Add(time.Minute))
			if first != (err == nil) {
				t.Errorf("first: %v %v", first, err)
			}
			return err
		}},
		{"kept.Put", func() error { return kept.Put(ctx, [32]byte{1}, []byte("sealed"), "ann", time.Minute) }},
		{"kept.Release", func() error { _, err := kept.Release(ctx, [32]byte{1}, "ann", time.Minute); return err }},
		{"kept.Take", func() error { _, _, err := kept.Take(ctx, [32]byte{1}); return err }},
		{"bans.Put", func() error { _, err := bans.Put(ctx, []ban.Ban{one}, ban.Most, now); return err }},
		{"bans.List", func() error { _, _, err := bans.List(ctx, ""); return err }},
		{"bans.Lift", func() error { _, err := bans.Lift(ctx, "", one.Key); return err }},
	}
	for _, step := range steps {
		if err := step.do(); !errors.Is(err, none) {
			t.Errorf("%s without a server: %v", step.name, err)
		}
	}
	watch := func() error {
		return sessions.Watch(ctx, func() { t.Error("it watches") }, func([]session.Hash) {})
	}
	if err := watch(); !errors.Is(err, none) {
		t.Errorf("sessions.Watch without a server: %v", err)
	}
	_, at := redistest.OnSocket(t)
	there = redistest.Dial(t, at)
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Errorf("%s with a server: %v", step.name, err)
		}
	}
}
