package attempts_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/secrets"
)

var (
	ctx    = context.Background()
	device = []byte("the hash of ann's own browser...")
)

// A world is a Throttle with a clock and a list of what it told.
type world struct {
	t   testing.TB
	th  *attempts.Throttle
	now time.Time

	mu      sync.Mutex
	notices []attempts.Notice
}

func newWorld(t testing.TB, c attempts.Config, s attempts.Store) *world {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, now: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)}
	w.th, err = attempts.New(c, k, s, func(n attempts.Notice) {
		w.mu.Lock()
		w.notices = append(w.notices, n)
		w.mu.Unlock()
	})
	if err != nil {
		t.Fatal(err)
	}
	w.th.SetClock(func() time.Time { return w.now })
	return w
}

func (w *world) told(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, notice := range w.notices {
		if notice.Kind == kind {
			n++
		}
	}
	return n
}

func password(name, client, pw string) attempts.Try {
	return attempts.Try{Kind: attempts.Password, Account: name, Client: netip.MustParseAddr(client), Password: pw}
}

// fails tries and fails; it reports whether the try was looked at.
func (w *world) fails(try attempts.Try) bool {
	k, wait := w.th.Begin(ctx, try)
	if !wait.OK() {
		return false
	}
	k.Failed()
	return true
}

// owner logs in from her own browser, from wherever she is.
func (w *world) owner(client string) {
	w.t.Helper()
	try := password("ann", client, "right")
	try.Also, try.Device = "ann@example.com", device
	k, wait := w.th.Begin(ctx, try)
	if !wait.OK() {
		w.t.Fatalf("the owner on her known device waits %v for %s", wait.For, wait.By)
	}
	k.Succeeded()
}

func TestAPersonMayMistype(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	for range 5 {
		if !w.fails(password("ann", "192.0.2.1", "oops")) {
			t.Fatal("one of five mistakes had to wait")
		}
	}
	k, wait := w.th.Begin(ctx, password("ann", "192.0.2.1", "right"))
	if !wait.OK() {
		t.Fatalf("the sixth waits %v", wait)
	}
	k.Succeeded()
	for range 5 {
		if !w.fails(password("ann", "192.0.2.1", "oops")) {
			t.Fatal("after a success the count does not begin anew")
		}
	}
}

func TestWaitsGrow(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	var waits []time.Duration
	for range 25 {
		for !w.fails(password("ann", "192.0.2.1", fmt.Sprint(len(waits)))) {
			_, wait := w.th.Begin(ctx, password("ann", "192.0.2.1", "x"))
			waits = append(waits, wait.For)
			w.now = w.now.Add(wait.For)
		}
	}
	if waits[0] != time.Second || waits[1] != 2*time.Second || waits[len(waits)-1] != time.Hour {
		t.Errorf("waits are %v, want from 1s, doubling, to 1h", waits)
	}
	for i := 1; i < 10; i++ {
		if waits[i] < waits[i-1] {
			t.Errorf("wait %d is shorter than the one before it: %v", i, waits)
		}
	}
}

// trap 44: F17's first attack.
func TestHundredThousandPairsFromOneAddress(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	looked := 0
	const pairs = 100_000 / scale
	for i := range pairs {
		if w.fails(password(fmt.Sprintf("user%d", i), "203.0.113.7", fmt.Sprintf("pw%d", i))) {
			looked++
		}
		if i%1000 == 0 {
			w.owner("203.0.113.7") // behind the same address, even
		}
		w.now = w.now.Add(36 * scale * time.Millisecond) // an hour in all
	}
	if looked > 60 {
		t.Errorf("%d of %d pairs were looked at in one hour, want at most 60", looked, pairs)
	}
	if w.told(attempts.AddressBlocked) == 0 {
		t.Error("nobody was told")
	}
	t.Logf("%d of %d were looked at", looked, pairs)
}

// trap 44: a botnet has one try per address; all of them want ann.
func TestTenThousandAddressesAttackOneAccount(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	looked := 0
	for i := range 10_000 {
		a := netip.AddrFrom4([4]byte{100, byte(64 + i>>12), byte(i >> 4), byte(i << 4)})
		if w.fails(password("ann", a.String(), fmt.Sprintf("pw%d", i))) {
			looked++
		}
		if i%100 == 0 {
			w.owner("198.51.100.3")
		}
		w.now = w.now.Add(time.Second)
	}
	if looked > 30 {
		t.Errorf("%d of 10000 guesses were looked at, want at most 30", looked)
	}
	if w.told(attempts.AccountAttacked) == 0 {
		t.Error("the owner was not told")
	}
	t.Logf("%d of 10000 were looked at", looked)
}

// NIST SP 800-63B-4, 3.2.2: at most 100 consecutive failures; also at 1/h,
// which no wait notices, and by both of an account's names.
func TestSlowGuesserStopsAtOneHundred(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	looked := map[string]int{}
	for i := range 1000 {
		a := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
		for _, name := range []string{"ann", "ann@example.com"} {
			if w.fails(password(name, a.String(), fmt.Sprintf("pw%d", i))) {
				looked[name]++
			}
		}
		w.now = w.now.Add(time.Hour)
	}
	if looked["ann"] != 50 || looked["ann@example.com"] != 50 {
		t.Errorf("%v guesses were looked at, want 50 each", looked)
	}
	if w.told(attempts.AccountLocked) == 0 {
		t.Error("nobody was told that only a link helps")
	}
	_, wait := w.th.Begin(ctx, password("ann", "192.0.2.200", "x"))
	if !wait.Locked || wait.By != "account" {
		t.Errorf("got %+v", wait)
	}
	w.owner("192.0.2.200") // and with her the failures are not consecutive any more
	for _, name := range []string{"ann", "ann@example.com"} {
		if !w.fails(password(name, "192.0.2.201", "x")) {
			t.Errorf("after the owner's log-in nobody else gets a try at %s", name)
		}
	}
	for range 1000 {
		w.fails(password("ann", "192.0.2.201", "x"))
		w.now = w.now.Add(time.Hour)
	}
	if err := w.th.Forgive(ctx, "ann"); err != nil {
		t.Fatal(err)
	}
	if !w.fails(password("ann", "192.0.2.202", "x")) {
		t.Error("an administrator's word does not help")
	}
}

// trap 44: one password over all users, each address used once.
func TestSpray(t *testing.T) {
	for _, pause := range []time.Duration{time.Second, 10 * time.Minute, time.Hour} {
		w := newWorld(t, attempts.Config{}, nil)
		looked := 0
		for i := range 1000 {
			a := netip.AddrFrom4([4]byte{100, 64 + byte(i>>8), byte(i), 1})
			if w.fails(password(fmt.Sprintf("user%d", i), a.String(), "Winter2026!")) {
				looked++
			}
			if i%50 == 0 {
				w.owner("198.51.100.3")
			}
			w.now = w.now.Add(pause)
		}
		hours := float64(pause) * 1000 / float64(time.Hour)
		if most := 20 + int(hours); looked > most {
			t.Errorf("every %v: %d of 1000 accounts were tried, want at most %d", pause, looked, most)
		}
		if w.told(attempts.PasswordSprayed) == 0 {
			t.Errorf("every %v: nobody was told", pause)
		}
		if !w.fails(password("bob", "192.0.2.1", "another one")) {
			t.Errorf("every %v: who tries another password waits, too", pause)
		}
	}
}

func TestOneAccountIsNoSpray(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	for i := range 200 {
		w.fails(password("ann", fmt.Sprintf("192.0.2.%d", i), "same"))
		w.now = w.now.Add(30 * time.Minute)
	}
	if w.told(attempts.PasswordSprayed) != 0 {
		t.Error("a person who repeats a mistake is taken for a spray")
	}
}

// trap 44: HTTP/2 multiplexing reads the counter before anybody increments it.
func TestParallelTriesAreCountedFirst(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	var looked atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 200 {
		wg.Go(func() {
			<-start
			if k, wait := w.th.Begin(ctx, password("ann", "203.0.113.7", fmt.Sprint(i))); wait.OK() {
				looked.Add(1)
				k.Failed()
			}
		})
	}
	close(start)
	wg.Wait()
	if n := looked.Load(); n > 6 { // five are free, the sixth brings the first wait
		t.Errorf("%d of 200 parallel tries were looked at, want at most 6", n)
	}
}

// Two who try at the same time, one of whom has looked at the clock before.
func TestSameTime(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	for range 5 {
		if !w.fails(password("ann", "192.0.2.1", "x")) {
			t.Fatal("waits although it is free")
		}
		w.now = w.now.Add(-time.Nanosecond)
	}
}

// trap 44: a success of the guesser's own account in between.
func TestOwnSuccessResetsNothing(t *testing.T) {
	run := func(own bool) (looked int) {
		w := newWorld(t, attempts.Config{}, nil)
		for i := range 2000 / scale {
			if own {
				if k, wait := w.th.Begin(ctx, password("mallory", "203.0.113.7", "mine")); wait.OK() {
					k.Succeeded()
				}
			}
			if w.fails(password(fmt.Sprintf("user%d", i), "203.0.113.7", fmt.Sprint("pw", i))) {
				looked++
			}
			w.now = w.now.Add(time.Second)
		}
		return looked
	}
	without, with := run(false), run(true)
	if with > without {
		t.Errorf("%d guesses with log-ins to an account of one's own, %d without", with, without)
	}
}

// In an office of 200 behind one address nobody notices.
func TestOffice(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	for i := range 200 {
		for j := range 1 + i%5/4 { // every fifth mistypes once
			try := password(fmt.Sprintf("user%d", i), "192.0.2.1", fmt.Sprint("pw", i, j))
			k, wait := w.th.Begin(ctx, try)
			if !wait.OK() {
				t.Fatalf("person %d waits: %+v", i, wait)
			}
			if j < i%5/4 {
				k.Failed()
			} else {
				k.Succeeded()
			}
		}
		w.now = w.now.Add(18 * time.Second) // they come within an hour
	}
}

// trap 44: all of these are one account, so they are one bucket.
func TestTwinsAreOneBucket(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	twins := []string{"Admin", "admin", "ADMIN", "ａｄｍｉｎ", "admin ", " Admin", "ＡＤＭＩＮ"}
	looked := 0
	for i := range 70 {
		name, err := account.Fold(twins[i%len(twins)])
		if err != nil {
			t.Fatal(err)
		}
		if w.fails(password(name, fmt.Sprintf("192.0.%d.1", i), fmt.Sprint(i))) {
			looked++
		}
	}
	if looked != 11 {
		t.Errorf("%d tries at once, want the 10 of one account and the one that begins the waiting", looked)
	}
}

// trap 45: the forms of one address are one bucket, and a home's /64 too.
func TestAddressFormsAreOneBucket(t *testing.T) {
	for name, forms := range map[string][]string{
		"mapped and translated":    {"192.0.2.1", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1"},
		"a home's temporary ones":  {"2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2:a:b:c:d"},
		"zones of one link's host": {"fe80::1%eth0", "fe80::1%eth1"},
	} {
		w := newWorld(t, attempts.Config{}, nil)
		looked := 0
		for i := range 60 {
			if w.fails(password("ann", forms[i%len(forms)], fmt.Sprint(i))) {
				looked++
			}
		}
		if looked != 6 {
			t.Errorf("%s: %d tries, want 6", name, looked)
		}
	}
	w := newWorld(t, attempts.Config{}, nil)
	if k, wait := w.th.Begin(ctx, attempts.Try{Kind: attempts.Password, Account: "ann"}); !wait.OK() {
		t.Error("a connection without an address cannot log in")
	} else {
		k.Failed()
	}
}

// One IPv6 /48 has 65536 /64s.
func TestSubnet(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	looked := 0
	for i := range 5000 {
		if w.fails(password(fmt.Sprint("user", i), fmt.Sprintf("2001:db8:7:%x::1", i), fmt.Sprint(i))) {
			looked++
		}
	}
	if looked > 301 {
		t.Errorf("%d tries from one /48, want at most 301", looked)
	}
}

// trap 44: guesses of codes are counted apart from passwords.
func TestCodesHaveTheirOwnBucket(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	code := func(kind string) attempts.Try {
		return attempts.Try{Kind: kind, Account: "ann", Client: netip.MustParseAddr("192.0.2.1")}
	}
	for _, kind := range []string{attempts.TOTP, attempts.Recovery, attempts.Reset} {
		looked := 0
		for range 100 {
			if w.fails(code(kind)) {
				looked++
			}
		}
		if looked != 6 {
			t.Errorf("%s: %d at once, want 6", kind, looked)
		}
	}
	if !w.fails(password("ann", "192.0.2.1", "x")) {
		t.Error("wrong codes make passwords wait")
	}
	// trap 46: brute force across steps. A year of guesses at six digits.
	looked := 0
	for range 365 * 24 / scale {
		if w.fails(code(attempts.TOTP)) {
			looked++
		}
		w.now = w.now.Add(time.Hour)
	}
	if looked > 100 {
		t.Errorf("%d codes were looked at within a year, want at most 100", looked)
	}
}

// trap 50: asking for mail is bounded, also if every try "succeeds".
func TestMailBombing(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	sent := 0
	for i := range 24 * 60 {
		k, wait := w.th.Begin(ctx, attempts.Try{Kind: attempts.Mail, Account: "ann", Client: netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})})
		if wait.OK() {
			sent++
			k.Succeeded()
		}
		w.now = w.now.Add(time.Minute)
	}
	if sent > 35 {
		t.Errorf("%d letters in a day, want at most 35", sent)
	}
	if w.told(attempts.AccountAttacked) != 0 {
		t.Error("mails are told as an attack on the account")
	}
}

// What the owner's own browser fails is bounded, too: the cookie may be stolen.
func TestStolenDevice(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	looked := 0
	for i := range 1000 {
		try := password("ann", "203.0.113.9", fmt.Sprint(i))
		try.Device = device
		if w.fails(try) {
			looked++
		}
		w.now = w.now.Add(time.Hour)
	}
	if looked > 200 {
		t.Errorf("%d guesses with a stolen device cookie, want at most 200", looked)
	}
	other := password("bob", "203.0.113.10", "x")
	other.Device = device
	if !w.fails(other) {
		t.Error("a device is counted across accounts")
	}
}

func TestGlobalRate(t *testing.T) {
	w := newWorld(t, attempts.Config{Alarm: 50}, nil)
	for i := range 60 {
		w.fails(password(fmt.Sprint("user", i), fmt.Sprintf("100.64.%d.1", i), fmt.Sprint(i)))
	}
	if w.told(attempts.RateHigh) != 1 {
		t.Errorf("told %d times, want once", w.told(attempts.RateHigh))
	}
	looked := 0
	for i := range 30 {
		if w.fails(password("bob", "192.0.2.1", fmt.Sprint("x", i))) {
			looked++
		}
	}
	if looked != 2 {
		t.Errorf("%d tries are free under attack, want 2", looked)
	}
	w.owner("192.0.2.1")
	w.now = w.now.Add(2 * time.Minute)
	looked = 0
	for i := range 30 {
		if w.fails(password("carl", "192.0.2.99", fmt.Sprint("y", i))) {
			looked++
		}
	}
	if looked != 6 {
		t.Errorf("%d tries are free after it, want 6", looked)
	}
}

func TestVoidIsNotCounted(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	for range 100 {
		k, wait := w.th.Begin(ctx, password("ann", "192.0.2.1", "x"))
		if !wait.OK() {
			t.Fatalf("waits: %+v", wait)
		}
		k.Void()
		k.Failed() // the first word counts
	}
}

func TestForgottenTicketIsAFailure(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	n := 0
	for range 100 {
		if _, wait := w.th.Begin(ctx, password("ann", "192.0.2.1", "x")); wait.OK() {
			n++
		}
	}
	if n != 6 {
		t.Errorf("%d, want 6", n)
	}
}

func TestClockGoesBack(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	for range 20 {
		w.fails(password("ann", "192.0.2.1", "x"))
		w.now = w.now.Add(time.Second)
	}
	w.now = w.now.Add(-time.Hour)
	if w.fails(password("ann", "192.0.2.1", "x")) {
		t.Error("a clock that goes back lets a guesser in")
	}
}

// A flood of new names does not wash away who is under attack.
func TestFloodOfNames(t *testing.T) {
	w := newWorld(t, attempts.Config{Places: 4096}, nil)
	for i := range 100 {
		w.fails(password("ann", fmt.Sprintf("100.64.%d.1", i), fmt.Sprint(i)))
		w.now = w.now.Add(time.Hour)
	}
	for i := range 50_000 / scale {
		w.fails(password(fmt.Sprint("user", i), fmt.Sprintf("2001:db8:%x:%x::1", i>>8, i&0xff), fmt.Sprint(i)))
	}
	if w.fails(password("ann", "192.0.2.1", "x")) {
		t.Error("ann's failures were forgotten")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := attempts.NewMemory(1 << 18)
	w := newWorld(t, attempts.Config{}, m)
	for i := range 60_000 / scale {
		w.fails(password(fmt.Sprint("user", i), fmt.Sprintf("2001:db8:%x:%x::1", i>>8, i&0xff), fmt.Sprint(i)))
	}
	if n := m.Resident(); n > 1<<18 {
		t.Errorf("%d places", n)
	}
}

type broken struct{}

func (broken) Reserve(context.Context, []attempts.Bucket, time.Time) (attempts.Result, error) {
	return attempts.Result{}, errors.New("no route to host")
}
func (broken) Refund(context.Context, []attempts.Refund, time.Time) error {
	return errors.New("no route to host")
}

// F17: with the store down, log-ins go on, counted here, more strictly than with
// it, and somebody is told.
func TestStoreDown(t *testing.T) {
	w := newWorld(t, attempts.Config{}, broken{})
	looked := 0
	for i := range 100 {
		if w.fails(password("ann", "192.0.2.1", fmt.Sprint(i))) {
			looked++
		}
	}
	if looked != 2 {
		t.Errorf("%d, want 2", looked)
	}
	if w.told(attempts.StoreFailed) != 1 {
		t.Errorf("told %d times, want once", w.told(attempts.StoreFailed))
	}
}

func TestPasswordIsNotKept(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	if tag := w.th.Tag("hunter2"); len(tag) != 8 || strings.Contains(tag, "hunter2") {
		t.Errorf("tag %q", tag)
	}
	k, err := secrets.NewKey(secrets.New(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	other, err := attempts.New(attempts.Config{}, k, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if other.Tag("hunter2") == w.th.Tag("hunter2") {
		t.Error("the tag does not hang on the key")
	}
}

func TestBadConfig(t *testing.T) {
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = attempts.New(attempts.Config{
		Failures: 101, Alarm: 1, Places: 5,
		Pair:    attempts.Schedule{Free: -1},
		Account: attempts.Schedule{First: time.Hour, Longest: time.Minute},
		Code:    attempts.Schedule{Forget: time.Millisecond},
	}, k, nil, nil)
	for _, want := range []string{"failures \"101\"", "alarm \"1\"", "places \"5\"", "pair.free \"-1\"", "account.longest \"1m0s\"", "code.forget \"1ms\""} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell %s", err, want)
		}
	}
}

func BenchmarkBegin(b *testing.B) {
	w := newWorld(b, attempts.Config{}, nil)
	names := make([]attempts.Try, 4096)
	for i := range names {
		names[i] = password(fmt.Sprint("user", i), fmt.Sprintf("2001:db8:%x:%x::1", i>>8, i&0xff), "right")
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		k, wait := w.th.Begin(ctx, names[i%len(names)])
		if wait.OK() {
			k.Succeeded()
		}
	}
}

func BenchmarkRefused(b *testing.B) {
	w := newWorld(b, attempts.Config{}, nil)
	try := password("ann", "192.0.2.1", "x")
	for range 20 {
		w.fails(try)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, wait := w.th.Begin(ctx, try); wait.OK() {
			b.Fatal("passed")
		}
	}
}

// An owner who logs in all the while is told of the attack all the same.
func TestOwnersAreToldWhileTheyLogIn(t *testing.T) {
	w := newWorld(t, attempts.Config{}, nil)
	device := []byte("a device that ann has logged in with")
	for i := range 40 {
		if k, wait := w.th.Begin(ctx, attempts.Try{Kind: attempts.Password, Account: "ann", Client: netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), Password: "guess"}); wait.OK() {
			k.Failed()
		}
		k, wait := w.th.Begin(ctx, attempts.Try{Kind: attempts.Password, Account: "ann", Client: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Device: device, Password: "right"})
		if !wait.OK() {
			t.Fatalf("the owner must wait: %+v", wait)
		}
		k.Succeeded()
	}
	if n := w.told(attempts.AccountAttacked); n != 1 {
		t.Errorf("told %d times", n)
	}
}
