package token_test

import (
	"testing"

	"github.com/merlon-dev/merlon/identity/token"
)

func BenchmarkIssue(b *testing.B) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		s, err := token.New(b.Context(), token.Config{Issuer: ours, Algorithm: alg}, masterKey(b), token.NewMemory())
		if err != nil {
			b.Fatal(err)
		}
		c := token.Claims{Subject: "ann", Client: "app", Scopes: []string{"read"}, Groups: []string{"staff"}, Roles: []string{"member"}}
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.Issue(b.Context(), c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b, nil)
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		tok := w.good(alg)
		b.Run("cold/"+alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.Forget()
				if _, err := w.Verify(b.Context(), tok); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	tok, bad := w.good("RS256"), w.good("RS256")
	bad = bad[:len(bad)-10] + "AAAAAAAAAA"
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := w.Verify(b.Context(), bad); err == nil {
				b.Fatal("accepted")
			}
		}
	})
	r := request("Bearer " + tok)
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := w.Prove(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := w.Prove(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

func BenchmarkRefresh(b *testing.B) {
	w := newWorld(b, nil)
	r := start(b, w)
	b.ReportAllocs()
	for b.Loop() {
		r = use(b, w.Service, r.Secret)
	}
}
