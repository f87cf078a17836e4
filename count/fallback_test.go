package count_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/count/counttest"
)

// shaky is a shared store that can be made to fail.
type shaky struct {
	*count.Memory
	err    atomic.Pointer[error] // what it answers with
	hangs  atomic.Bool           // it does not answer
	forgot atomic.Bool
	asked  atomic.Int64
	probed atomic.Int64
}

func newShaky() *shaky { return &shaky{Memory: count.NewMemory(count.MemoryConfig{Keys: 1024})} }

func (s *shaky) fail(err error) {
	if err == nil {
		s.err.Store(nil)
		return
	}
	s.err.Store(&err)
}

func (s *shaky) up(ctx context.Context) error {
	if s.hangs.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := s.err.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

func (s *shaky) Take(ctx context.Context, asks []count.Ask, res []count.Result, now time.Time) error {
	s.asked.Add(1)
	if err := s.up(ctx); err != nil {
		return err
	}
	return s.Memory.Take(ctx, asks, res, now)
}

func (s *shaky) Add(ctx context.Context, asks []count.Ask, now time.Time) error {
	s.asked.Add(1)
	if err := s.up(ctx); err != nil {
		return err
	}
	return s.Memory.Add(ctx, asks, now)
}

func (s *shaky) Hold(ctx context.Context, places []count.Place) (int, func(), error) {
	s.asked.Add(1)
	if err := s.up(ctx); err != nil {
		return -1, nil, err
	}
	return s.Memory.Hold(ctx, places)
}

func (s *shaky) Probe(ctx context.Context, _ time.Time) (bool, error) {
	s.probed.Add(1)
	return s.forgot.Swap(false), s.up(ctx)
}

type notices struct {
	mu  sync.Mutex
	all []count.Notice
}

func (n *notices) notify(x count.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, x)
}

func (n *notices) events() (events []count.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.all {
		events = append(events, x.Event)
	}
	return events
}

// patient is a config for a machine that stands still at times.
var patient = count.FallbackConfig{Timeout: 2 * time.Second, Watch: 20 * time.Millisecond, Retry: 20 * time.Millisecond}

func fallback(t testing.TB, c count.FallbackConfig, shared count.Store, replicas int) (*count.Fallback, *notices) {
	n := new(notices)
	f := count.NewFallback(c, shared, count.NewMemory(count.MemoryConfig{Keys: 1024}), func() int { return replicas }, n.notify)
	t.Cleanup(f.Close)
	return f, n
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within twenty seconds", what)
}

func TestFallbackKeepsTheContract(t *testing.T) {
	open := func(err error) counttest.Open {
		return func(t *testing.T) (count.Store, counttest.Clock) {
			s := newShaky()
			s.fail(err)
			f, _ := fallback(t, patient, s, 1)
			return f, counttest.NewFake()
		}
	}
	t.Run("shared", func(t *testing.T) { counttest.Run(t, open(nil)) })
	t.Run("lost", func(t *testing.T) { counttest.Run(t, open(errors.New("down"))) })
}

var slowly = count.Quota{Every: time.Hour, Burst: 12}

// grants takes until nothing is left, and says how much there was.
func grants(t testing.TB, s count.Store, k count.Key, q count.Quota, now time.Time) (n int) {
	t.Helper()
	for range 10_000 {
		if !take(t, s, k, q, 1, now).OK {
			return n
		}
		n++
	}
	t.Fatal("it is unlimited")
	return n
}

// Three replicas lose their store: together they grant at most one burst more,
// less what was granted evenly before. They tell it once, and tell when it is
// back.
func TestFallbackIsNeverUnlimited(t *testing.T) {
	now := time.Now()
	for name, q := range map[string]count.Quota{"rate": slowly, "window": {Burst: 12, Ends: now.Add(time.Hour)}} {
		for _, before := range []int{0, 2, 4} {
			s := newShaky()
			var replicas []*count.Fallback
			var told []*notices
			for range 3 {
				f, n := fallback(t, patient, s, 3)
				replicas, told = append(replicas, f), append(told, n)
				for range before {
					if !take(t, f, key(1), q, 1, now).OK {
						t.Fatal("refused")
					}
				}
			}
			s.fail(errors.New("down"))
			n := 0
			for _, f := range replicas {
				n += grants(t, f, key(1), q, now)
			}
			if want := 12 - 3*before; n != want {
				t.Errorf("%s: %d each before, %d in all while it is down, want %d", name, before, n, want)
			}
			for _, n := range told {
				eventually(t, "it is told", func() bool { return slices.Contains(n.events(), count.SharedLost) })
			}
			s.fail(nil)
			for i, n := range told {
				eventually(t, "it is back", func() bool { return replicas[i].Shared() && slices.Contains(n.events(), count.SharedBack) })
				if e := n.events(); !slices.Equal(e, []count.Event{count.SharedLost, count.SharedBack}) {
					t.Errorf("%s: told %v", name, e)
				}
			}
			n = 0
			for _, f := range replicas {
				n += grants(t, f, key(1), q, now)
			}
			if want := 12 - 3*before; n != want {
				t.Errorf("%s: %d in all when it is back, want the %d that it knows of", name, n, want)
			}
		}
	}
}

// In a window that is lost again and again, what is granted locally is one
// burst in all.
func TestManyLossesAreOneBurst(t *testing.T) {
	s, now := newShaky(), time.Now()
	f, _ := fallback(t, patient, s, 1)
	q, all := count.Quota{Burst: 10, Ends: now.Add(time.Hour)}, 0
	for range 4 {
		s.fail(errors.New("down"))
		for range 3 {
			if take(t, f, key(1), q, 1, now).OK {
				all++
			}
		}
		s.fail(nil)
		eventually(t, "it is back", f.Shared)
	}
	if all != 10 {
		t.Errorf("%d were granted locally, want 10 of 12", all)
	}
}

// A quota that is smaller than the number of replicas leaves one to each, and
// a request that costs more than its share can be made; the rate holds.
func TestSharesOfSmallQuotas(t *testing.T) {
	s, now := newShaky(), time.Now()
	f, _ := fallback(t, patient, s, 10)
	s.fail(errors.New("down"))
	q := count.Quota{Every: time.Second, Burst: 8}
	if n := grants(t, f, key(1), q, now); n != 1 {
		t.Errorf("%d of eight among ten", n)
	}
	if res := take(t, f, key(1), q, 1, now.Add(9*time.Second)); res.OK {
		t.Error("more than the rate")
	}
	if res := take(t, f, key(1), q, 1, now.Add(10*time.Second)); !res.OK {
		t.Errorf("a tenth of the rate is refused: %+v", res)
	}
	if res := take(t, f, key(2), q, 8, now); !res.OK {
		t.Errorf("a request that costs the burst can never be made: %+v", res)
	}
	if res := take(t, f, key(2), q, 1, now.Add(79*time.Second)); res.OK {
		t.Error("a cheap one after it is too early")
	}
	if res := take(t, f, key(2), q, 8, now.Add(80*time.Second)); !res.OK {
		t.Errorf("%+v", res)
	}
}

// While the store is lost, no request asks it, and it is asked now and then by
// one.
func TestNoStampede(t *testing.T) {
	s := newShaky()
	c := count.FallbackConfig{Timeout: 30 * time.Millisecond, Watch: time.Hour, Retry: 200 * time.Millisecond}
	f, n := fallback(t, c, s, 1)
	eventually(t, "it is asked at first", func() bool { return s.probed.Load() == 1 })
	s.hangs.Store(true)
	began := time.Now()
	var wg sync.WaitGroup
	for g := range uint32(64) {
		wg.Go(func() {
			for i := range uint32(50) {
				take(t, f, key(g*1000+i), slowly, 1, began)
			}
		})
	}
	wg.Wait()
	if n := s.asked.Load(); n > 66 { // and by one or two whether it goes on
		t.Errorf("a store that hangs was asked %d times by 64 requests at once", n)
	}
	took := time.Since(began)
	if n := s.probed.Load(); n > 2+int64(took/(100*time.Millisecond)) {
		t.Errorf("it was asked %d times in %v whether it is back", n, took)
	}
	asked := s.asked.Load()
	s.hangs.Store(false)
	eventually(t, "it is back", f.Shared)
	if s.asked.Load() != asked {
		t.Error("a request tried whether it is back")
	}
	eventually(t, "both are told", func() bool { return len(n.events()) == 2 })
}

// What its client gave up is no failure of the store, and is not counted as a
// grant; what is added for it is counted.
func TestClientsThatLeave(t *testing.T) {
	s := newShaky()
	f, n := fallback(t, patient, s, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	asks := []count.Ask{{Key: key(1), Quota: slowly, Cost: 1}}
	if err := f.Take(ctx, asks, make([]count.Result, 1), time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, _, err := f.Hold(ctx, []count.Place{{Key: key(1), Most: 1}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := f.Add(ctx, asks, time.Now()); err != nil {
		t.Error(err)
	}
	if !f.Shared() || len(n.events()) != 0 {
		t.Errorf("a client that left is a failure of the store: %v", n.events())
	}
	if r := take(t, s, key(1), slowly, 0, time.Now()); r.Remaining != 11 {
		t.Errorf("%+v", r)
	}
}

// A store that has forgotten is not used for a while by quotas that it would
// give anew, and they are warm.
func TestForgotten(t *testing.T) {
	s, now := newShaky(), time.Now()
	c := patient
	c.Settle = time.Hour
	f, n := fallback(t, c, s, 1)
	grants(t, f, key(1), slowly, now)
	s.Memory = count.NewMemory(count.MemoryConfig{Keys: 8})
	s.forgot.Store(true)
	eventually(t, "it is told", func() bool { return slices.Equal(n.events(), []count.Event{count.SharedForgot}) })
	if n := grants(t, f, key(1), slowly, now); n != 0 {
		t.Errorf("%d more after a flush", n)
	}
	if asked := s.asked.Load(); grants(t, f, key(2), slowly, now) != 12 || s.asked.Load() != asked {
		t.Error("the store is used")
	}
	quick := count.Quota{Every: time.Nanosecond, Burst: 5}
	if asked := s.asked.Load(); !take(t, f, key(3), quick, 1, now).OK || s.asked.Load() != asked+1 {
		t.Error("the store is not used for what is whole again")
	}
}

// Places: held in common, then by shares; each is released where it is held.
func TestFallbackHolds(t *testing.T) {
	s := newShaky()
	f, _ := fallback(t, patient, s, 2)
	places := []count.Place{{Key: key(1), Most: 4}}
	hold := func() (func(), bool) {
		full, release, err := f.Hold(t.Context(), places)
		if err != nil {
			t.Fatal(err)
		}
		return release, full == -1
	}
	one, ok := hold()
	if !ok {
		t.Fatal("refused")
	}
	s.fail(errors.New("down"))
	two, ok := hold()
	if !ok {
		t.Fatal("two of two refused")
	}
	if _, ok := hold(); ok {
		t.Error("what is held in common does not count")
	}
	one()
	three, ok := hold()
	if !ok {
		t.Error("what was held in common is not released")
	}
	two()
	three()
	s.fail(nil)
	eventually(t, "it is back", f.Shared)
	for i := range 4 {
		if _, ok := hold(); !ok {
			t.Errorf("%d of four refused", i+1)
		}
	}
	if _, ok := hold(); ok {
		t.Error("five of four")
	}
	none := []count.Place{{Key: key(2)}}
	s.fail(errors.New("down"))
	if full, _, err := f.Hold(t.Context(), none); full != 0 || err != nil {
		t.Errorf("one of no places: %d %v", full, err)
	}
}

func BenchmarkFallbackLost(b *testing.B) {
	s := newShaky()
	s.fail(errors.New("down"))
	f, _ := fallback(b, count.FallbackConfig{Retry: time.Hour}, s, 3)
	asks, res := []count.Ask{{Key: benchKey(1), Quota: often, Cost: 1}}, make([]count.Result, 1)
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Take(b.Context(), asks, res, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

// A store that was slow for a moment is not lost: those who waited for it are
// counted here, and all others there.
func TestSlowForAMoment(t *testing.T) {
	s := newShaky()
	c := count.FallbackConfig{Timeout: 200 * time.Millisecond, Watch: time.Hour, Retry: time.Hour}
	f, n := fallback(t, c, s, 2)
	eventually(t, "the first probe", func() bool { return s.probed.Load() > 0 })
	ask := []count.Ask{{Key: count.Key("k"), Quota: count.Quota{Every: time.Hour, Burst: 4}, Cost: 1}}
	res := make([]count.Result, 1)
	take := func() bool {
		t.Helper()
		if err := f.Take(t.Context(), ask, res, time.Now()); err != nil {
			t.Fatal(err)
		}
		return res[0].OK
	}
	for range 3 {
		s.hangs.Store(true)
		take()
		s.hangs.Store(false)
		take()
	}
	if !f.Shared() || len(n.events()) > 0 || f.Here() != 3 {
		t.Fatalf("it is taken for lost: %v; counted here: %d", n.events(), f.Here())
	}
	// Of four, the moments gave away two at most, the replica's part of them.
	granted := 0
	for range 10 {
		if take() {
			granted++
		}
	}
	if granted > 2 {
		t.Errorf("%d more are granted", granted)
	}
	s.hangs.Store(true)
	eventually(t, "it is lost", func() bool { take(); return !f.Shared() })
}
