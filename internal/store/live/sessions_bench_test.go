package live_test

import (
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/session/sessiontest"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/test/redistest"
)

// BenchmarkSessions is what sessions in a server of this machine cost.
func BenchmarkSessions(b *testing.B) {
	_, at := redistest.OnSocket(b)
	store := live.NewSessions(live.Connected(redistest.Dial(b, at)))
	m, accounts := manager(b, store)
	s, cookie := begin(b, m, accounts, "ann")
	b.Run("check, read within the last second", func(b *testing.B) {
		r := request(cookie)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Prove(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check, read each time", func(b *testing.B) {
		r := request(cookie)
		b.ReportAllocs()
		for b.Loop() {
			m.Forget("ann")
			if _, err := m.Prove(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check, read each time, by many", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := store.Get(b.Context(), s.Hash); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("a log-in at the most sessions", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := store.Put(b.Context(), sessiontest.New("ann", time.Now()), 10); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("a thousand open connections asked about", func(b *testing.B) {
		var hashes []session.Hash
		for range 1000 {
			s := sessiontest.New("", time.Now())
			s.Account = s.ID
			if _, err := store.Put(b.Context(), s, 10); err != nil {
				b.Fatal(err)
			}
			hashes = append(hashes, s.Hash)
		}
		b.ReportAllocs()
		for b.Loop() {
			if gone, err := store.Gone(b.Context(), hashes); err != nil || len(gone) != 0 {
				b.Fatal(len(gone), err)
			}
		}
	})
}
