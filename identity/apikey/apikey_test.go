package apikey_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/access"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/apikey"
	"github.com/merlon-dev/merlon/merlontest"
)

var ctx = context.Background()

// people is who has keys.
type people map[string]account.Account

func (p people) Account(_ context.Context, id string) (account.Account, error) {
	a, ok := p[id]
	if !ok {
		return account.Account{}, account.ErrNotFound
	}
	return a, nil
}

// counting counts what a store is asked.
type counting struct {
	apikey.Store
	reads, uses atomic.Int32
	down        atomic.Bool
}

func (c *counting) Key(ctx context.Context, id string) (apikey.Key, error) {
	c.reads.Add(1)
	if c.down.Load() {
		return apikey.Key{}, errors.New("no route to host")
	}
	return c.Store.Key(ctx, id)
}

func (c *counting) UseKey(ctx context.Context, id string, now time.Time, from netip.Addr) error {
	c.uses.Add(1)
	return c.Store.UseKey(ctx, id, now, from)
}

type world struct {
	t      testing.TB
	keys   *apikey.Keys
	store  *counting
	people people
	now    time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{
		t: t, store: &counting{Store: apikey.NewMemory()}, now: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC),
		people: people{
			"A1": {ID: "A1", Name: "ann", Groups: []string{"ops"}, Roles: []string{"team"}},
			"A2": {ID: "A2", Name: "bob"},
		},
	}
	w.keys = apikey.New(w.store, w.people)
	w.keys.SetClock(func() time.Time { return w.now })
	return w
}

func (w *world) issue(k apikey.Key) (string, apikey.Key) {
	w.t.Helper()
	if k.Account == "" {
		k.Account = "A1"
	}
	if k.Name == "" {
		k.Name = "the nightly job"
	}
	text, k, err := w.keys.Issue(ctx, k)
	if err != nil {
		w.t.Fatal(err)
	}
	return text.Reveal(), k
}

func (w *world) prove(field, value string) (*merlon.Identity, error) {
	w.t.Helper()
	r := merlontest.Request(w.t, "GET /\n"+field+": "+value)
	return w.keys.Prove(r)
}

func why(err error) merlon.Reason {
	if e, ok := errors.AsType[*apikey.Error](err); ok {
		return e.Reason()
	}
	return ""
}

func TestProve(t *testing.T) {
	w := newWorld(t)
	text, k := w.issue(apikey.Key{Scopes: []string{"orders:read"}})
	for _, field := range []string{"Authorization: Bearer ", "Authorization: bearer  ", "X-API-Key: ", "x-api-key:"} {
		name, before, _ := strings.Cut(field, ":")
		id, err := w.prove(name, before+text)
		if err != nil {
			t.Errorf("%s: %v", field, err)
			continue
		}
		if id.Subject != "A1" || id.Name != "ann" || id.Groups[0] != "ops" || id.Roles[0] != "team" || id.Scopes[0] != "orders:read" ||
			id.Methods[0] != "key" || !id.When.IsZero() || id.Session != k.Prefix() {
			t.Errorf("%s: %+v", field, id)
		}
	}
	// Without scopes it is good for nothing that asks for one: nil would be a
	// person, who is not bounded.
	bare, _ := w.issue(apikey.Key{Account: "A2"})
	id, err := w.prove("X-API-Key", bare)
	if err != nil {
		t.Fatal(err)
	}
	g, err := access.New(access.Config{Scope: access.List{"orders:read"}})
	if err != nil {
		t.Fatal(err)
	}
	if d := g.Check(&merlon.Request{Identity: id}); d.Reason != access.ScopeMissing {
		t.Errorf("a key without scopes: %q, %q", d.Reason, id.Scopes)
	}
	if all, err := w.keys.List(ctx, "A1"); err != nil || len(all) != 1 || !bytes.Equal(all[0].Hash, k.Hash) {
		t.Errorf("%v, %v", all, err)
	}
}

// Others' credentials are not ours to judge.
func TestNoProof(t *testing.T) {
	w := newWorld(t)
	for _, row := range [][2]string{
		{"Accept", "*/*"}, {"Authorization", "Basic bWtfOg=="}, {"Authorization", "Bearer eyJhbGciOiJub25lIn0.e30."},
		{"X-API-Key", "sk_live_1"}, {"Authorization", "mk_"}, {"Authorization", "Bearer"}, {"Cookie", "key=mk_x"},
	} {
		if id, err := w.prove(row[0], row[1]); !errors.Is(err, merlon.ErrNoProof) || id != nil {
			t.Errorf("%s: %s: %v, %v", row[0], row[1], id, err)
		}
	}
}

func TestKeysThatDoNotHold(t *testing.T) {
	w := newWorld(t)
	good, _ := w.issue(apikey.Key{})
	unknown, _ := apikey.NewText()
	old, oldKey := w.issue(apikey.Key{Expires: w.now.Add(time.Hour)})
	revoked, revokedKey := w.issue(apikey.Key{})
	bound, _ := w.issue(apikey.Key{Networks: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}})
	bobs, _ := w.issue(apikey.Key{Account: "A2"})
	lost, _ := w.issue(apikey.Key{Account: "A2"})
	w.people["A2"] = account.Account{ID: "A2", Disabled: true}
	w.now = oldKey.Expires
	if err := w.keys.Revoke(ctx, revokedKey.ID); err != nil {
		t.Fatal(err)
	}
	// The id of one key with the secret of another, and a right checksum.
	head := good[:20] + unknown[20:len(unknown)-7]
	mixed := head + apikey.Checksum(head)
	for _, row := range []struct {
		name, text string
		want       merlon.Reason
	}{
		{"unknown", unknown, apikey.Unknown},
		{"another's secret", mixed, apikey.Unknown},
		{"expired to the second", old, apikey.Expired},
		{"revoked", revoked, apikey.Revoked},
		{"from elsewhere", bound, apikey.WrongNetwork},
		{"owner disabled", bobs, apikey.OwnerGone},
		{"cut", good[:len(good)-1], apikey.Malformed},
		{"one letter wrong", good[:40] + flip(good[40]) + good[41:], apikey.Malformed},
		{"in lower case", "mk_" + strings.ToLower(good[3:]), apikey.Malformed},
		{"with more behind it", good + "A", apikey.Malformed},
		{"only the beginning", "mk_", apikey.Malformed},
		{"20 kB", "mk_" + strings.Repeat("A", 20<<10), apikey.Malformed},
	} {
		id, err := w.prove("Authorization", "Bearer "+row.text)
		if why(err) != row.want || id != nil {
			t.Errorf("%s: %v, %v; want %s", row.name, id, err, row.want)
		}
		if e, ok := errors.AsType[*apikey.Error](err); ok && e.Status() != 401 {
			t.Errorf("%s: status %d", row.name, e.Status())
		}
		if err != nil && len(row.text) > 30 && strings.Contains(err.Error(), row.text[25:]) {
			t.Errorf("%s: the error tells the key", row.name)
		}
	}
	delete(w.people, "A2")
	if _, err := w.prove("X-API-Key", lost); why(err) != apikey.OwnerGone {
		t.Errorf("owner deleted: %v", err)
	}
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// trap 45: the network is judged on the address itself, each time.
func TestNetworks(t *testing.T) {
	w := newWorld(t)
	text, _ := w.issue(apikey.Key{Networks: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}})
	for from, ok := range map[string]bool{
		"10.8.3.4": true, "::ffff:10.8.3.4": true, "10.9.0.1": false, "2001:db8::1": true, "2001:db9::1": false, "64:ff9b::10.8.3.4": false,
	} {
		r := merlontest.Request(t, "GET /\nX-API-Key: "+text)
		r.Client = netip.MustParseAddr(from)
		if _, err := w.keys.Prove(r); (err == nil) != ok {
			t.Errorf("%s: %v", from, err)
		}
	}
	r := merlontest.Request(t, "GET /\nX-API-Key: "+text)
	r.Client = netip.Addr{}
	if _, err := w.keys.Prove(r); why(err) != apikey.WrongNetwork {
		t.Errorf("without an address: %v", err)
	}
}

func TestTwoKeysInOneRequest(t *testing.T) {
	w := newWorld(t)
	a, _ := w.issue(apikey.Key{})
	b, _ := w.issue(apikey.Key{Account: "A2"})
	for _, wire := range []string{
		"GET /\nAuthorization: Bearer " + a + "\nX-API-Key: " + b,
		"GET /\nX-API-Key: " + a + "\nX-API-Key: " + b,
		"GET /\nAuthorization: Bearer " + a + "\nAuthorization: Bearer " + b,
	} {
		if _, err := w.keys.Prove(merlontest.Request(t, wire)); why(err) != apikey.Malformed {
			t.Errorf("%.40s…: %v", wire, err)
		}
	}
	if _, err := w.keys.Prove(merlontest.Request(t, "GET /\nAuthorization: Bearer "+a+"\nX-API-Key: "+a)); err != nil {
		t.Errorf("the same key twice: %v", err)
	}
}

// Revoked by another replica: within a second.
func TestRevocationElsewhere(t *testing.T) {
	w := newWorld(t)
	text, k := w.issue(apikey.Key{})
	other := apikey.New(w.store, w.people)
	other.SetClock(func() time.Time { return w.now })
	if _, err := w.prove("X-API-Key", text); err != nil {
		t.Fatal(err)
	}
	if err := other.Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Second)
	if _, err := w.prove("X-API-Key", text); why(err) != apikey.Revoked {
		t.Errorf("a second later: %v", err)
	}
	text, k = w.issue(apikey.Key{})
	if _, err := w.prove("X-API-Key", text); err != nil {
		t.Fatal(err)
	}
	if err := w.keys.Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.prove("X-API-Key", text); why(err) != apikey.Revoked {
		t.Errorf("on this replica, at once: %v", err)
	}
	if err := w.keys.Revoke(ctx, "AAAAAAAAAAAAAAAA"); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("what there is not: %v", err)
	}
}

func TestOwnerLosesARole(t *testing.T) {
	w := newWorld(t)
	text, _ := w.issue(apikey.Key{})
	if _, err := w.prove("X-API-Key", text); err != nil {
		t.Fatal(err)
	}
	w.people["A1"] = account.Account{ID: "A1", Name: "ann"}
	w.now = w.now.Add(time.Second)
	id, err := w.prove("X-API-Key", text)
	if err != nil || len(id.Roles) != 0 {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestStoreIsAskedOnceASecond(t *testing.T) {
	w := newWorld(t)
	text, k := w.issue(apikey.Key{})
	for range 100 {
		if _, err := w.prove("X-API-Key", text); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(100 * time.Millisecond)
	}
	if n := w.store.reads.Load(); n != 10 {
		t.Errorf("%d reads in ten seconds, want 10", n)
	}
	for range 600 {
		if _, err := w.prove("X-API-Key", text); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(time.Second)
	}
	if n := w.store.uses.Load(); n < 10 || n > 12 {
		t.Errorf("the last use was written %d times in ten minutes, want once a minute", n)
	}
	if got, err := w.store.Store.Key(ctx, k.ID); err != nil || w.now.Sub(got.Used) > 2*time.Minute || got.UsedFrom.String() != "192.0.2.1" {
		t.Errorf("%+v, %v", got, err)
	}
	w.store.down.Store(true)
	if _, err := w.prove("X-API-Key", text); why(err) != apikey.Unavailable {
		t.Errorf("with the store down: %v", err)
	} else if e, _ := errors.AsType[*apikey.Error](err); e.Status() != http.StatusServiceUnavailable {
		t.Errorf("status %d", e.Status())
	}
}

func TestMemoryIsBounded(t *testing.T) {
	w := newWorld(t)
	for i := range apikey.MaxKnown + 100 {
		text, _ := w.issue(apikey.Key{Name: fmt.Sprint(i)})
		if _, err := w.prove("X-API-Key", text); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.keys.Known(); n > apikey.MaxKnown {
		t.Errorf("%d are remembered", n)
	}
}

func TestIssue(t *testing.T) {
	w := newWorld(t)
	text, k := w.issue(apikey.Key{})
	if !regexp.MustCompile(`^mk_[A-Z2-7]{16}_[A-Z2-7]{59}$`).MatchString(text) || !strings.HasPrefix(text, k.Prefix()+"_") {
		t.Errorf("%s has another form than is documented", text)
	}
	stored, err := w.store.Store.Key(ctx, k.ID)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256([]byte(text)); !bytes.Equal(stored.Hash, sum[:]) {
		t.Error("the hash is of something else")
	}
	if strings.Contains(fmt.Sprintf("%+v", stored), text[21:60]) {
		t.Error("the store knows the secret")
	}
	for name, k := range map[string]apikey.Key{
		"name":         {Account: "A1"},
		"long name":    {Account: "A1", Name: strings.Repeat("x", 129)},
		"past":         {Account: "A1", Name: "x", Expires: w.now},
		"scope":        {Account: "A1", Name: "x", Scopes: []string{"a b"}},
		"empty scope":  {Account: "A1", Name: "x", Scopes: []string{""}},
		"network":      {Account: "A1", Name: "x", Networks: []netip.Prefix{netip.MustParsePrefix("10.8.1.1/16")}},
		"zero network": {Account: "A1", Name: "x", Networks: []netip.Prefix{{}}},
		"mapped":       {Account: "A1", Name: "x", Networks: []netip.Prefix{netip.MustParsePrefix("::ffff:10.8.0.0/112")}},
		"many scopes":  {Account: "A1", Name: "x", Scopes: strings.Split(strings.Repeat("a ", 65)+"b", " ")},
		"nobody's":     {Account: "A9", Name: "x"},
	} {
		if s, _, err := w.keys.Issue(ctx, k); err == nil {
			t.Errorf("%s: issued %s", name, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	good, _ := apikey.NewText()
	f.Add(good)
	f.Add("mk__")
	f.Add("mk_AAAAAAAAAAAAAAAA_" + strings.Repeat("A", 59))
	form := regexp.MustCompile(`^mk_[A-Z2-7]{16}_[A-Z2-7]{59}$`)
	f.Fuzz(func(t *testing.T, text string) {
		id, ok := apikey.Parse(text)
		if ok && (!form.MatchString(text) || text[3:19] != id || apikey.Checksum(text[:72]) != text[72:]) {
			t.Errorf("%q was taken for the key %q", text, id)
		}
		if !ok && id != "" && len(id) != 16 {
			t.Errorf("%q has the id %q", text, id)
		}
	})
}

func BenchmarkProve(b *testing.B) {
	w := newWorld(b)
	text, _ := w.issue(apikey.Key{})
	r := merlontest.Request(b, "GET /\nX-API-Key: "+text)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.keys.Prove(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGarbage(b *testing.B) {
	w := newWorld(b)
	r := merlontest.Request(b, "GET /\nX-API-Key: mk_"+strings.Repeat("A", 76))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.keys.Prove(r); err == nil {
			b.Fatal("passed")
		}
	}
}
