package session_test

import (
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/session/sessiontest"
)

func openMemory(*testing.T) (one, other session.Store) {
	m := session.NewMemory(0)
	return m, m
}

func TestMemory(t *testing.T) {
	sessiontest.TestStore(t, openMemory)
	t.Run("watch", func(t *testing.T) { sessiontest.TestWatch(t, openMemory) })
	t.Run("replicas", func(t *testing.T) { sessiontest.TestReplicas(t, openMemory) })
}

func TestMemoryIsBounded(t *testing.T) {
	m := session.NewMemory(100)
	at := time.Now()
	var used []session.Session
	for range 1000 {
		s := sessiontest.New("", at)
		s.Account = s.ID
		used = append(used, s)
		if _, err := m.Put(t.Context(), s, 10); err != nil {
			t.Fatal(err)
		}
	}
	there := 0
	for _, s := range used {
		if _, err := m.Get(t.Context(), s.Hash); err == nil {
			there++
		}
	}
	if there != 100 {
		t.Errorf("%d are there, want 100", there)
	}
	if _, err := m.Get(t.Context(), used[999].Hash); err != nil {
		t.Error("the one that was just put is gone")
	}
}

func TestMemoryForgetsWhatHasExpired(t *testing.T) {
	m := session.NewMemory(0)
	at := time.Now()
	old := sessiontest.New("ann", at)
	if _, err := m.Put(t.Context(), old, 10); err != nil {
		t.Fatal(err)
	}
	for range 64 { // each looks at one part of the store
		s := sessiontest.New("", at.Add(2*time.Hour))
		s.Account = s.ID
		if _, err := m.Put(t.Context(), s, 10); err != nil {
			t.Fatal(err)
		}
	}
	if gone, _ := m.Gone(t.Context(), []session.Hash{old.Hash}); len(gone) != 1 {
		t.Error("an expired session takes up room")
	}
}
