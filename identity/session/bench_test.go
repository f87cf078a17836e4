package session_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
)

// BenchmarkProve is the check of a session that is in use.
func BenchmarkProve(b *testing.B) {
	people := &people{are: map[string]account.Account{"ann": {ID: "ann", Roles: []string{"member"}}}}
	store := session.NewMemory(0)
	m, err := session.New(session.Config{}, store, people)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	cookies := make([]*http.Cookie, 10)
	for i := range cookies {
		if _, cookies[i], err = m.Begin(request(), session.Proof{Account: "ann", Methods: []string{"password", "totp"}}); err != nil {
			b.Fatal(err)
		}
	}
	prove := func(b *testing.B, r *merlon.Request) {
		if _, err := m.Prove(r); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("one", func(b *testing.B) {
		r := polling(cookies[0])
		b.ReportAllocs()
		for b.Loop() {
			prove(b, r)
		}
	})
	b.Run("of a request that ends", func(b *testing.B) { // as with a server
		over, done := context.WithCancel(b.Context())
		ended := polling(cookies[0])
		ended.Request = ended.WithContext(over)
		prove(b, ended)
		done()
		b.ReportAllocs()
		for b.Loop() {
			prove(b, ended)
		}
	})
	b.Run("ten at once", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			n := 0
			rs := make([]*merlon.Request, len(cookies))
			for i := range rs {
				rs[i] = polling(cookies[i])
			}
			for pb.Next() {
				prove(b, rs[n%len(rs)])
				n++
			}
		})
	})
	b.Run("an id that nobody has", func(b *testing.B) {
		r := request(&http.Cookie{Name: session.Cookie, Value: zeroID})
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Prove(r); err == nil {
				b.Fatal("it proves somebody")
			}
		}
	})
	b.Run("no cookie", func(b *testing.B) {
		r := request()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Prove(r); err == nil {
				b.Fatal("it proves somebody")
			}
		}
	})
}

// BenchmarkBegin is a log-in without its password.
func BenchmarkBegin(b *testing.B) {
	people := &people{are: map[string]account.Account{"ann": {ID: "ann"}}}
	m, err := session.New(session.Config{}, session.NewMemory(0), people)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := m.Begin(request(), session.Proof{Account: "ann", Methods: []string{"password"}}); err != nil {
			b.Fatal(err)
		}
	}
}
