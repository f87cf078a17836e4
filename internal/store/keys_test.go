package store_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/apikey"
	"github.com/merlon-dev/merlon/internal/store"
)

func TestKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		db := open()
		ctx, s := t.Context(), db.Keys()
		create(t, db.Accounts(), named("ann"), named("bob"))
		full := apikey.Key{
			ID: "k1", Hash: []byte{0, 255}, Account: "id-ann", Name: "build", Scopes: []string{"read", "write"},
			Networks: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16"), netip.MustParsePrefix("2001:db8::/32")},
			Created:  noon, Expires: noon.Add(time.Hour), Used: noon, UsedFrom: netip.MustParseAddr("10.8.0.1"),
		}
		bare := apikey.Key{ID: "k2", Hash: []byte{1}, Account: "id-ann", Created: noon.Add(time.Second)}
		other := apikey.Key{ID: "k3", Hash: []byte{2}, Account: "id-bob", Created: noon.Add(time.Minute)}
		for _, k := range []apikey.Key{full, bare, other} {
			wants(t, "add", s.AddKey(ctx, k), nil)
			got, err := s.Key(ctx, k.ID)
			wants(t, "key", err, nil)
			same(t, "key", got, k)
		}
		wants(t, "add again", s.AddKey(ctx, bare), account.ErrTaken)
		_, err := s.Key(ctx, "none")
		wants(t, "another", err, account.ErrNotFound)
		for of, want := range map[string][]apikey.Key{"id-ann": {bare, full}, "": {other, bare, full}, "id-eve": nil} {
			got, err := s.Keys(ctx, of)
			wants(t, "keys", err, nil)
			same(t, "keys of "+of, got, want)
		}

		wants(t, "use", s.UseKey(ctx, "k2", noon.Add(time.Hour), netip.MustParseAddr("::1")), nil)
		wants(t, "use earlier", s.UseKey(ctx, "k2", noon, netip.MustParseAddr("::2")), nil)
		wants(t, "revoke", s.RevokeKey(ctx, "k2", noon.Add(time.Hour)), nil)
		wants(t, "revoke again", s.RevokeKey(ctx, "k2", noon.Add(2*time.Hour)), nil)
		wants(t, "revoke another", s.RevokeKey(ctx, "none", noon), account.ErrNotFound)
		bare.Used, bare.UsedFrom, bare.Revoked = noon.Add(time.Hour), netip.MustParseAddr("::1"), noon.Add(time.Hour)
		got, err := s.Key(ctx, "k2")
		wants(t, "key", err, nil)
		same(t, "key", got, bare)

		wants(t, "delete", db.Accounts().Delete(ctx, "id-ann"), nil)
		_, err = s.Key(ctx, "k1")
		wants(t, "its account is gone", err, account.ErrNotFound)
		wants(t, "add to one who is gone", s.AddKey(ctx, full), account.ErrNotFound)
	})
}
