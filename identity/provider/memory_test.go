package provider_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/provider"
)

// TestMemory holds a Memory to what Store promises; that of a database is
// tested beside it.
func TestMemory(t *testing.T) {
	ctx, now := t.Context(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	hash := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
	wants := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	m := provider.NewMemory()
	g := provider.Grant{ID: "g1", Client: "wiki", Subject: "ANN", Created: now, Expires: now.Add(time.Hour)}
	wants("add", m.AddGrant(ctx, g, &provider.Code{Hash: hash(1), Grant: "g1"}), nil)
	wants("add", m.AddGrant(ctx, provider.Grant{ID: "g2", Client: "shop", Subject: "ANN", Created: now.Add(-1), Expires: now.Add(time.Minute)}, nil), nil)
	wants("a hash that is none", m.AddGrant(ctx, g, &provider.Code{Hash: []byte("x"), Grant: "g1"}), provider.ErrNotFound)

	_, err := m.TakeCode(ctx, hash(9))
	wants("no such code", err, provider.ErrNotFound)
	_, err = m.TakeCode(ctx, nil)
	wants("no code", err, provider.ErrNotFound)
	_, err = m.TakeCode(ctx, hash(1))
	wants("a code", err, nil)
	c, err := m.TakeCode(ctx, hash(1))
	if wants("a code again", err, provider.ErrUsed); c.Grant != "g1" {
		t.Errorf("what it was is not told: %+v", c)
	}

	wants("a token of no grant", m.AddRefresh(ctx, provider.Refresh{Hash: hash(2), Grant: "g9"}), provider.ErrNotFound)
	wants("a token", m.AddRefresh(ctx, provider.Refresh{Hash: hash(2), Grant: "g1"}), nil)
	wants("rotate into another family", m.Rotate(ctx, hash(2), provider.Refresh{Hash: hash(3), Grant: "g2"}), provider.ErrNotFound)
	wants("rotate", m.Rotate(ctx, hash(2), provider.Refresh{Hash: hash(3), Grant: "g1"}), nil)
	wants("rotate again", m.Rotate(ctx, hash(2), provider.Refresh{Hash: hash(4), Grant: "g1"}), provider.ErrUsed)
	_, err = m.Refresh(ctx, hash(4))
	wants("a fork", err, provider.ErrNotFound)
	r, err := m.Refresh(ctx, hash(2))
	if wants("the old one", err, provider.ErrUsed); r.Grant != "g1" {
		t.Errorf("what it was is not told: %+v", r)
	}
	_, err = m.Refresh(ctx, hash(3))
	wants("the new one", err, nil)

	gs, err := m.Grants(ctx, "ANN", now)
	if wants("grants", err, nil); len(gs) != 2 || gs[0].ID != "g2" {
		t.Errorf("%v", gs)
	}
	if gs, _ := m.Grants(ctx, "ANN", now.Add(time.Minute)); len(gs) != 1 {
		t.Errorf("%v", gs)
	}
	_, err = m.Grant(ctx, "g1", now.Add(time.Hour))
	wants("an expired grant", err, provider.ErrNotFound)
	wants("end", m.EndGrant(ctx, "g1"), nil)
	wants("end again", m.EndGrant(ctx, "g1"), nil)
	_, err = m.TakeCode(ctx, hash(1))
	wants("the code of an ended grant", err, provider.ErrNotFound)
	wants("the token of an ended grant", m.Rotate(ctx, hash(3), provider.Refresh{Hash: hash(5), Grant: "g1"}), provider.ErrNotFound)

	// What has expired is dropped, with what hangs on it.
	wants("add", m.AddGrant(ctx, g, &provider.Code{Hash: hash(1), Grant: "g1"}), nil)
	later := now.Add(2 * time.Hour)
	wants("add", m.AddGrant(ctx, provider.Grant{ID: "g3", Subject: "BOB", Created: later, Expires: later.Add(time.Hour)}, nil), nil)
	_, err = m.TakeCode(ctx, hash(1))
	wants("the code of an expired grant", err, provider.ErrNotFound)
}
