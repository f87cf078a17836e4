package store_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/apikey"
	"github.com/merlon-dev/merlon/internal/store"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 123456789, time.UTC)

func ann() account.Account {
	return account.Account{
		ID: "id-ann", Name: "ann", Display: "Ann Émile", Email: "ann@example.com", EmailVerified: true,
		Groups: []string{"ops", "dev"}, Roles: []string{"admin"}, Password: "$argon2id$x", PasswordSince: noon,
		MustChange: true, Created: noon, Disabled: true, ValidFrom: noon.Add(time.Second), EnrolBy: noon.Add(time.Hour),
	}
}

func named(name string) account.Account {
	return account.Account{ID: "id-" + name, Name: name, Created: noon}
}

// create adds accounts.
func create(t *testing.T, s account.Store, list ...account.Account) {
	t.Helper()
	for _, a := range list {
		if err := s.Create(t.Context(), a); err != nil {
			t.Fatalf("%s: %v", a.Name, err)
		}
	}
}

func wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func TestAccounts(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, ann(), named("bob"))
		want := ann()
		want.Groups = []string{"dev", "ops"}
		for what, get := range map[string]func() (account.Account, error){
			"by id":    func() (account.Account, error) { return s.Account(ctx, "id-ann") },
			"by name":  func() (account.Account, error) { return s.ByName(ctx, "ann") },
			"by email": func() (account.Account, error) { return s.ByEmail(ctx, "ann@example.com") },
		} {
			got, err := get()
			wants(t, what, err, nil)
			same(t, what, got, want)
		}
		bob, err := s.Account(ctx, "id-bob")
		wants(t, "bob", err, nil)
		if !bob.ValidFrom.IsZero() || !bob.EnrolBy.IsZero() || bob.Disabled || len(bob.Groups) > 0 {
			t.Errorf("what was not set is: %+v", bob)
		}
		for what, get := range map[string]func() (account.Account, error){
			"another id":           func() (account.Account, error) { return s.Account(ctx, "id-bo") },
			"another name":         func() (account.Account, error) { return s.ByName(ctx, "bo") },
			"a name with a quote":  func() (account.Account, error) { return s.ByName(ctx, "' OR ''='") },
			"a name in upper case": func() (account.Account, error) { return s.ByName(ctx, "BOB") },
			"no address":           func() (account.Account, error) { return s.ByEmail(ctx, "") },
		} {
			_, err := get()
			wants(t, what, err, account.ErrNotFound)
		}
	})
}

func TestNamesAndAddressesAreOnes(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, ann())
		change := func(a account.Account, f func(*account.Account)) account.Account { f(&a); return a }
		wants(t, "the same name", s.Create(ctx, change(ann(), func(a *account.Account) { a.ID, a.EmailVerified = "2", false })), account.ErrTaken)
		wants(t, "the same id", s.Create(ctx, change(named("x"), func(a *account.Account) { a.ID = "id-ann" })), account.ErrTaken)
		wants(t, "the same address", s.Create(ctx, change(named("x"), func(a *account.Account) { a.Email, a.EmailVerified = "ann@example.com", true })), account.ErrTaken)
		// Who only says that an address is his must not keep its owner out.
		wants(t, "the same address, not verified", s.Create(ctx, change(named("eve"), func(a *account.Account) { a.Email = "ann@example.com" })), nil)
		got, err := s.ByEmail(ctx, "ann@example.com")
		wants(t, "by email", err, nil)
		same(t, "by email", got.ID, "id-ann")
		_, err = s.Update(ctx, "id-eve", func(a *account.Account) error { a.EmailVerified = true; return nil })
		wants(t, "verified later", err, account.ErrTaken)
		_, err = s.Update(ctx, "id-eve", func(a *account.Account) error { a.Name = "ann"; return nil })
		wants(t, "renamed", err, account.ErrTaken)
		// No address is no address, however often.
		create(t, s, change(named("y"), func(a *account.Account) { a.EmailVerified = true }),
			change(named("z"), func(a *account.Account) { a.EmailVerified = true }))
	})
}

func TestListOfAccounts(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		s := open().Accounts()
		for _, name := range []string{"b", "a", "c", "a.b", "a-b", "ä", "zz", "a_b", "a%b", `a\b`} {
			create(t, s, named(name))
		}
		create(t, s, ann())
		for _, c := range []struct {
			filter, after string
			limit         int
			want          string
		}{
			{"", "", 100, `a a%b a-b a.b a\b a_b ann b c zz ä`}, // by bytes, whatever the server's locale
			{"", "", 2, `a a%b`},
			{"", "a%b", 3, `a-b a.b a\b`},
			{"", "ä", 3, ``},
			{"%", "", 9, `a%b`},
			{"_", "", 9, `a_b`},
			{`\`, "", 9, `a\b`},
			{"ÉMI", "", 9, `ann`},
			{"@EXAMPLE", "", 9, `ann`},
			{"n", "ann", 9, ``},
			{"", "", 0, ``},
			{"", "", -1, ``},
		} {
			list, err := s.Accounts(t.Context(), c.filter, c.after, c.limit)
			wants(t, c.filter, err, nil)
			var got []string
			for _, a := range list {
				got = append(got, a.Name)
			}
			same(t, fmt.Sprintf("%q after %q", c.filter, c.after), strings.Join(got, " "), c.want)
		}
	})
}

func TestUpdate(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, ann())
		got, err := s.Update(ctx, "id-ann", func(a *account.Account) error {
			a.ID, a.Created, a.Disabled, a.Groups, a.ValidFrom = "other", time.Time{}, false, nil, noon.Add(time.Minute)
			return nil
		})
		wants(t, "update", err, nil)
		stored, err := s.Account(ctx, "id-ann")
		wants(t, "account", err, nil)
		if got.ID != "id-ann" || stored.Disabled || !stored.ValidFrom.Equal(noon.Add(time.Minute)) || len(stored.Groups) > 0 || !stored.Created.Equal(noon) {
			t.Errorf("got %+v\nstored %+v", got, stored)
		}
		// Trap 49: a clock that was set back brings nothing back to life.
		got, err = s.Update(ctx, "id-ann", func(a *account.Account) error { a.ValidFrom = noon.Add(-time.Hour); return nil })
		wants(t, "update", err, nil)
		same(t, "valid from", got.ValidFrom, noon.Add(time.Minute))
		stop := errors.New("stop")
		_, err = s.Update(ctx, "id-ann", func(a *account.Account) error { a.Name = "gone"; return stop })
		wants(t, "a change that fails", err, stop)
		_, err = s.ByName(ctx, "gone")
		wants(t, "a change that fails", err, account.ErrNotFound)
		_, err = s.Update(ctx, "nobody", func(*account.Account) error { return nil })
		wants(t, "nobody", err, account.ErrNotFound)
	})
}

// Changes that are made at once are all made.
func TestUpdatesAreNotLost(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		s := open().Accounts()
		create(t, s, named("ann"))
		won := race(t, open, account.ErrTaken, func(db *store.DB, n int) error {
			_, err := db.Accounts().Update(context.Background(), "id-ann", func(a *account.Account) error {
				a.Groups = append(a.Groups, fmt.Sprintf("g%02d", n))
				return nil
			})
			return err
		})
		a, err := s.Account(t.Context(), "id-ann")
		wants(t, "account", err, nil)
		if won != 50 || len(a.Groups) != 50 {
			t.Errorf("%d updates, %d groups", won, len(a.Groups))
		}
	})
}

// What people call themselves and their things never fails for its letters.
func TestOddWordsAreStored(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		db := open()
		ctx, s := t.Context(), db.Accounts()
		odd := "a\x00b\xff'\"\u202e"
		a := named("ann")
		a.Display = odd
		create(t, s, a)
		wants(t, "factor", s.AddFactor(ctx, account.Factor{ID: "f", Account: "id-ann", Kind: account.Passkey, Name: odd}), nil)
		wants(t, "key", db.Keys().AddKey(ctx, apikey.Key{ID: "k", Account: "id-ann", Name: odd}), nil)
		got, err := s.Account(ctx, "id-ann")
		wants(t, "account", err, nil)
		same(t, "display", got.Display, "ab\uFFFD'\"\u202e")
		list, err := s.Accounts(ctx, odd, "", 9)
		if err != nil || len(list) != 1 {
			t.Errorf("found %v, %v", list, err)
		}
	})
}

func TestDeleteTakesEverythingAlong(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		for _, name := range []string{"ann", "bob"} {
			id := "id-" + name
			create(t, s, named(name))
			wants(t, "factor", s.AddFactor(ctx, account.Factor{ID: "f" + id, Account: id, Kind: account.TOTP}), nil)
			wants(t, "link", s.AddLink(ctx, account.Link{Hash: []byte(id), Purpose: account.RecoverLink, Account: id, Expires: time.Now().Add(time.Hour)}), nil)
			wants(t, "device", s.KnowDevice(ctx, account.Device{Hash: []byte("d"), Account: id}), nil)
			wants(t, "note", s.Note(ctx, account.LogIn{Account: id, Time: noon}), nil)
			wants(t, "external", s.AddExternal(ctx, account.External{Issuer: "i", Subject: id, Account: id}), nil)
		}
		wants(t, "delete", s.Delete(ctx, "id-ann"), nil)
		wants(t, "delete again", s.Delete(ctx, "id-ann"), account.ErrNotFound)
		for id, want := range map[string]error{"id-ann": account.ErrNotFound, "id-bob": nil} {
			_, err := s.Account(ctx, id)
			wants(t, id, err, want)
			_, err = s.Factor(ctx, "f"+id)
			wants(t, id+"'s factor", err, want)
			_, err = s.Link(ctx, account.RecoverLink, []byte(id), time.Now())
			wants(t, id+"'s link", err, want)
			_, err = s.Device(ctx, id, []byte("d"))
			wants(t, id+"'s device", err, want)
			_, err = s.External(ctx, "i", id)
			wants(t, id+"'s external", err, want)
			list, err := s.History(ctx, id, 9)
			if err != nil || (len(list) == 0) != (want != nil) {
				t.Errorf("%s's history: %v, %v", id, list, err)
			}
		}
		// What is added to one who is gone does not stay behind.
		wants(t, "factor", s.AddFactor(ctx, account.Factor{ID: "f", Account: "id-ann", Kind: account.TOTP}), account.ErrNotFound)
		wants(t, "factors", s.ReplaceFactors(ctx, "id-ann", account.Recovery, nil), account.ErrNotFound)
		wants(t, "link", s.AddLink(ctx, account.Link{Hash: []byte("l"), Account: "id-ann", Expires: time.Now().Add(time.Hour)}), account.ErrNotFound)
		wants(t, "device", s.KnowDevice(ctx, account.Device{Hash: []byte("d"), Account: "id-ann"}), account.ErrNotFound)
		wants(t, "note", s.Note(ctx, account.LogIn{Account: "id-ann"}), account.ErrNotFound)
		wants(t, "external", s.AddExternal(ctx, account.External{Issuer: "i", Subject: "s", Account: "id-ann"}), account.ErrNotFound)
	})
}

func TestFirstIsOne(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		won := race(t, open, account.ErrTaken, func(db *store.DB, n int) error {
			return db.Accounts().First(context.Background(), named(fmt.Sprint("first", n)))
		})
		list, err := open().Accounts().Accounts(t.Context(), "", "", 100)
		if err != nil || won != 1 || len(list) != 1 {
			t.Errorf("%d won, %d accounts, %v", won, len(list), err)
		}
	})
}

func TestFactors(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, named("ann"), named("bob"))
		key := account.Factor{ID: "k", Account: "id-ann", Kind: account.Passkey, Name: "phone", Data: []byte{0, 1, 255}, Counter: 1 << 40, Created: noon}
		otp := account.Factor{ID: "t", Account: "id-ann", Kind: account.TOTP, Data: []byte("sealed"), Created: noon.Add(time.Second), Used: noon}
		wants(t, "add", s.AddFactor(ctx, otp), nil)
		wants(t, "add", s.AddFactor(ctx, key), nil)
		// Trap 48: a credential of one account cannot be registered by another.
		stolen := key
		stolen.Account = "id-bob"
		wants(t, "trap 48: registered twice", s.AddFactor(ctx, stolen), account.ErrTaken)
		list, err := s.Factors(ctx, "id-ann")
		wants(t, "factors", err, nil)
		same(t, "factors", list, []account.Factor{key, otp})
		list, err = s.Factors(ctx, "id-bob")
		if err != nil || len(list) > 0 {
			t.Errorf("bob has %v, %v", list, err)
		}

		wants(t, "use", s.UseFactor(ctx, "t", 0, 7, []byte("new"), noon.Add(time.Minute)), nil)
		// Trap 46: a step that was used, and one that was before it.
		wants(t, "trap 46: used again", s.UseFactor(ctx, "t", 0, 7, nil, noon), account.ErrUsed)
		wants(t, "use", s.UseFactor(ctx, "t", 7, 9, nil, noon.Add(time.Hour)), nil)
		wants(t, "one that is not there", s.UseFactor(ctx, "none", 0, 1, nil, noon), account.ErrNotFound)
		got, err := s.Factor(ctx, "t")
		wants(t, "factor", err, nil)
		otp.Counter, otp.Data, otp.Used = 9, []byte("new"), noon.Add(time.Hour)
		same(t, "factor", got, otp)
		// A synced passkey counts nothing: 0 follows 0.
		wants(t, "add", s.AddFactor(ctx, account.Factor{ID: "synced", Account: "id-bob", Kind: account.Passkey}), nil)
		wants(t, "trap 48: counter 0", s.UseFactor(ctx, "synced", 0, 0, nil, noon), nil)

		wants(t, "remove another's", s.RemoveFactor(ctx, "id-bob", "t"), account.ErrNotFound)
		wants(t, "remove", s.RemoveFactor(ctx, "id-ann", "t"), nil)
		wants(t, "remove again", s.RemoveFactor(ctx, "id-ann", "t"), account.ErrNotFound)
	})
}

func TestReplaceFactors(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, named("ann"), named("bob"))
		wants(t, "add", s.AddFactor(ctx, account.Factor{ID: "t", Account: "id-ann", Kind: account.TOTP}), nil)
		wants(t, "add", s.AddFactor(ctx, account.Factor{ID: "b", Account: "id-bob", Kind: account.Recovery}), nil)
		codes := func(prefix string) (list []account.Factor) {
			for i := range 10 {
				list = append(list, account.Factor{ID: fmt.Sprint(prefix, i), Account: "id-ann", Kind: account.Recovery, Created: noon})
			}
			return list
		}
		// Two sets at once: one of them is left, not both.
		race(t, open, account.ErrTaken, func(db *store.DB, n int) error {
			return db.Accounts().ReplaceFactors(context.Background(), "id-ann", account.Recovery, codes(fmt.Sprint("r", n, "-")))
		})
		list, err := s.Factors(ctx, "id-ann")
		if err != nil || len(list) != 11 {
			t.Errorf("%d factors, %v", len(list), err)
		}
		wants(t, "replace", s.ReplaceFactors(ctx, "id-ann", account.Recovery, codes("x")), nil)
		wants(t, "one is taken", s.ReplaceFactors(ctx, "id-ann", account.Recovery, append(codes("y"), account.Factor{ID: "b"})), account.ErrTaken)
		if _, err := s.Factor(ctx, "x0"); err != nil {
			t.Errorf("half of a replacement was made: %v", err)
		}
	})
}

// Traps 46, 47 and 50: what is good once is good once, also when fifty come
// with it at the same time, to two replicas.
func TestOnceIsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, named("ann"))
		wants(t, "add", s.AddFactor(ctx, account.Factor{ID: "t", Account: "id-ann", Kind: account.TOTP, Counter: 5}), nil)
		wants(t, "add", s.AddFactor(ctx, account.Factor{ID: "r", Account: "id-ann", Kind: account.Recovery}), nil)
		hash := sha256.Sum256([]byte(rand.Text()))
		wants(t, "add", s.AddLink(ctx, account.Link{Hash: hash[:], Purpose: account.RecoverLink, Account: "id-ann", Expires: time.Now().Add(time.Hour)}), nil)
		for _, c := range []struct {
			name string
			want error
			try  func(s account.Store) error
		}{
			{"trap 46: one TOTP step", account.ErrUsed, func(s account.Store) error { return s.UseFactor(context.Background(), "t", 5, 6, nil, noon) }},
			{"trap 47: one recovery code", account.ErrNotFound, func(s account.Store) error { return s.RemoveFactor(context.Background(), "id-ann", "r") }},
			{"trap 50: one link", account.ErrNotFound, func(s account.Store) error {
				_, err := s.TakeLink(context.Background(), account.RecoverLink, hash[:], time.Now())
				return err
			}},
		} {
			if won := race(t, open, c.want, func(db *store.DB, _ int) error { return c.try(db.Accounts()) }); won != 1 {
				t.Errorf("%s: %d have won", c.name, won)
			}
		}
	})
}

func TestLinks(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		db := open()
		ctx, s := t.Context(), db.Accounts()
		db.SetNow(func() time.Time { return noon })
		create(t, s, named("ann"))
		link := account.Link{Hash: []byte{0, 1}, Purpose: account.RecoverLink, Account: "id-ann", Data: "d", Expires: noon.Add(time.Hour)}
		invite := account.Link{Hash: []byte{0, 2}, Purpose: account.InviteLink, Data: "{}", Expires: noon.Add(2 * time.Hour)}
		wants(t, "add", s.AddLink(ctx, link), nil)
		wants(t, "add", s.AddLink(ctx, invite), nil)
		wants(t, "add again", s.AddLink(ctx, link), account.ErrTaken)
		for range 2 { // looking uses nothing up (trap 50: link scanners)
			got, err := s.Link(ctx, account.RecoverLink, link.Hash, noon)
			wants(t, "link", err, nil)
			same(t, "link", got, link)
		}
		got, err := s.Link(ctx, account.InviteLink, invite.Hash, noon)
		wants(t, "invitation", err, nil)
		same(t, "invitation", got, invite)
		_, err = s.TakeLink(ctx, account.InviteLink, link.Hash, noon)
		wants(t, "for another purpose", err, account.ErrNotFound)
		_, err = s.TakeLink(ctx, account.RecoverLink, link.Hash, link.Expires)
		wants(t, "when it has expired", err, account.ErrNotFound)
		_, err = s.Link(ctx, account.RecoverLink, link.Hash, link.Expires)
		wants(t, "when it has expired", err, account.ErrNotFound)
		_, err = s.Link(ctx, account.RecoverLink, nil, noon)
		wants(t, "without a hash", err, account.ErrNotFound)
		got, err = s.TakeLink(ctx, account.RecoverLink, link.Hash, noon)
		wants(t, "take", err, nil)
		same(t, "take", got, link)
		_, err = s.TakeLink(ctx, account.RecoverLink, link.Hash, noon)
		wants(t, "take again", err, account.ErrNotFound)

		for i := range 3 { // trap 50: parallel tokens
			link.Hash = []byte{1, byte(i)}
			wants(t, "add", s.AddLink(ctx, link), nil)
		}
		wants(t, "drop", s.DropLinks(ctx, "id-ann", account.EmailLink), nil)
		_, err = s.Link(ctx, account.RecoverLink, []byte{1, 0}, noon)
		wants(t, "for another purpose", err, nil)
		wants(t, "drop", s.DropLinks(ctx, "id-ann", account.RecoverLink), nil)
		for i := range 3 {
			_, err := s.Link(ctx, account.RecoverLink, []byte{1, byte(i)}, noon)
			wants(t, "dropped", err, account.ErrNotFound)
		}

		wants(t, "add", s.AddLink(ctx, link), nil)
		db.SetNow(func() time.Time { return link.Expires })
		wants(t, "add", s.AddLink(ctx, account.Link{Hash: []byte{9}, Purpose: account.FirstLink, Expires: noon.Add(9 * time.Hour)}), nil)
		_, err = s.Link(ctx, account.RecoverLink, link.Hash, noon)
		wants(t, "what has expired is removed", err, account.ErrNotFound)
	})
}

func TestDevices(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, named("ann"), named("bob"))
		old := account.Device{Hash: []byte{1}, Account: "id-ann", Agent: "Firefox", Created: noon, Used: noon}
		other := account.Device{Hash: []byte{2}, Account: "id-ann", Agent: "bad \xff\x00 words", Created: noon, Used: noon.Add(time.Minute)}
		wants(t, "know", s.KnowDevice(ctx, old), nil)
		wants(t, "know", s.KnowDevice(ctx, other), nil)
		other.Agent = "bad \uFFFD words"
		_, err := s.Device(ctx, "id-bob", old.Hash)
		wants(t, "trap 47: another's device", err, account.ErrNotFound)
		list, err := s.Devices(ctx, "id-ann")
		wants(t, "devices", err, nil)
		same(t, "devices", list, []account.Device{other, old})
		again := old
		again.Created, again.Used = noon.Add(time.Hour), noon.Add(time.Hour)
		wants(t, "know again", s.KnowDevice(ctx, again), nil)
		again.Created = noon
		got, err := s.Device(ctx, "id-ann", old.Hash)
		wants(t, "device", err, nil)
		same(t, "device", got, again)
		wants(t, "forget", s.ForgetDevices(ctx, "id-ann"), nil)
		_, err = s.Device(ctx, "id-ann", old.Hash)
		wants(t, "forgotten", err, account.ErrNotFound)
	})
}

func TestHistory(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, named("ann"), named("bob"))
		wants(t, "note", s.Note(ctx, account.LogIn{Account: "id-bob", Time: noon}), nil)
		var want []account.LogIn
		for i := range 105 {
			l := account.LogIn{Time: noon.Add(time.Duration(i)), Account: "id-ann", Client: netip.MustParseAddr("2001:db8::1"), Agent: "a", Method: "password", Result: "ok"}
			wants(t, "note", s.Note(ctx, l), nil)
			want = append(want, l)
		}
		slices.Reverse(want)
		got, err := s.History(ctx, "id-ann", 3)
		wants(t, "history", err, nil)
		same(t, "history", got, want[:3])
		got, err = s.History(ctx, "id-ann", 1000)
		wants(t, "history", err, nil)
		same(t, "history", got, want[:100])
		got, err = s.History(ctx, "id-bob", 1000)
		if err != nil || len(got) != 1 || got[0].Client.IsValid() {
			t.Errorf("bob: %v, %v", got, err)
		}
	})
}

func TestExternals(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, named("ann"), named("bob"))
		e := account.External{Issuer: "https://id.example", Subject: "1", Account: "id-ann", Created: noon}
		wants(t, "add", s.AddExternal(ctx, e), nil)
		wants(t, "add again", s.AddExternal(ctx, e), nil)
		stolen := e
		stolen.Account = "id-bob"
		wants(t, "trap 57: linked to another", s.AddExternal(ctx, stolen), account.ErrTaken)
		got, err := s.External(ctx, e.Issuer, "1")
		wants(t, "external", err, nil)
		same(t, "external", got, e)
		// Trap 54: one "sub" of two issuers is two people.
		_, err = s.External(ctx, e.Issuer+"/", "1")
		wants(t, "trap 54: another issuer", err, account.ErrNotFound)
		list, err := s.Externals(ctx, "id-ann")
		wants(t, "externals", err, nil)
		same(t, "externals", list, []account.External{e})
		wants(t, "another's", s.RemoveExternal(ctx, "id-bob", e.Issuer, "1"), account.ErrNotFound)
		wants(t, "remove", s.RemoveExternal(ctx, "id-ann", e.Issuer, "1"), nil)
		wants(t, "remove again", s.RemoveExternal(ctx, "id-ann", e.Issuer, "1"), account.ErrNotFound)
	})
}
