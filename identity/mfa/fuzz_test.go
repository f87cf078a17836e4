package mfa_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"testing"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
)

// No text but one that was handed out is a ticket, for any purpose.
func FuzzTicket(f *testing.F) {
	w := worldOf(f, mfa.Config{}, newMemory())
	// Each of the fuzzer's processes has a key of its own.
	w.Factors = open(f, mfa.Config{}, w.store, rand.Text()+rand.Text())
	e, err := w.EnrolTOTP(f.Context(), w.ann)
	if err != nil {
		f.Fatal(err)
	}
	c, err := w.BeginLogIn(f.Context(), shop, "", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Ticket)
	f.Add(c.Ticket)
	f.Add("")
	f.Fuzz(func(t *testing.T, ticket string) {
		if ticket == e.Ticket || ticket == c.Ticket {
			return
		}
		_, err := w.ConfirmTOTP(t.Context(), w.ann.ID, ticket, "123456", "")
		wants(t, err, mfa.ErrStale)
		_, err = w.FinishLogIn(t.Context(), shop, ticket, nil)
		wants(t, err, mfa.ErrStale)
		_, err = w.FinishSecond(t.Context(), shop, w.ann.ID, ticket, nil)
		wants(t, err, mfa.ErrStale)
		_, err = w.FinishRegister(t.Context(), shop, w.ann.ID, account.Passkey, ticket, "", nil)
		wants(t, err, mfa.ErrStale)
	})
}

// No answer that the device did not make proves anybody, or makes a passkey.
func FuzzAnswer(f *testing.F) {
	w := worldOf(f, mfa.Config{}, newMemory())
	d := w.registered(f, shop, w.ann, account.Passkey)
	c, err := w.BeginLogIn(f.Context(), shop, "", "")
	if err != nil {
		f.Fatal(err)
	}
	r, err := w.BeginRegister(f.Context(), shop, w.ann, account.Passkey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.get(f, c))
	f.Add(newDevice(shop).create(f, r))
	f.Add([]byte(`{"id":"` + base64.RawURLEncoding.EncodeToString(d.cred.ID) + `","type":"public-key"}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		// For new questions, which no seed answers.
		c, err := w.BeginLogIn(t.Context(), shop, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if p, err := w.FinishLogIn(t.Context(), shop, c.Ticket, answer); !errors.Is(err, mfa.ErrWrong) {
			t.Errorf("%+v, %v", p, err)
		}
		r, err := w.BeginRegister(t.Context(), shop, w.bob, account.Passkey)
		if err != nil {
			t.Fatal(err)
		}
		if fa, err := w.FinishRegister(t.Context(), shop, w.bob.ID, account.Passkey, r.Ticket, "", answer); !errors.Is(err, mfa.ErrWrong) {
			t.Errorf("%+v, %v", fa, err)
		}
	})
}

// What is refused for its signature and what is nobody's take about the same
// time (trap 41).
func BenchmarkFinishLogIn(b *testing.B) {
	w := worldOf(b, mfa.Config{}, newMemory())
	d := w.registered(b, shop, w.ann, account.Passkey)
	copied, stranger := *d, newDevice(shop)
	copied.cred.Key, stranger.auth.Options.UserHandle = stranger.cred.Key, d.auth.Options.UserHandle
	d.auth.Options.UserHandle = bytes.Clone(d.auth.Options.UserHandle)
	for _, c := range []struct {
		name   string
		device *device
		handle bool
		want   error
	}{{"right", d, true, nil}, {"wrong", &copied, false, mfa.ErrWrong}, {"nobody's", stranger, false, mfa.ErrWrong}} {
		b.Run(c.name, func(b *testing.B) {
			if !c.handle {
				c.device.auth.Options.UserHandle = nil
			}
			for b.Loop() {
				b.StopTimer()
				q, err := w.BeginLogIn(b.Context(), shop, "ann", w.ann.ID)
				if err != nil {
					b.Fatal(err)
				}
				answer := c.device.get(b, q)
				b.StartTimer()
				if _, err := w.FinishLogIn(b.Context(), shop, q.Ticket, answer); !errors.Is(err, c.want) {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBeginLogIn(b *testing.B) {
	w := worldOf(b, mfa.Config{}, newMemory())
	for b.Loop() {
		if _, err := w.BeginLogIn(b.Context(), shop, "carl", ""); err != nil {
			b.Fatal(err)
		}
	}
}
