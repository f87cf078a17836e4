// Package attempts slows down who guesses passwords and codes at Merlon's own
// log-in: one account, one address, one network, or one password over many
// accounts, while the owner of an attacked account gets in on a browser that
// logged in before.
//
// A try is counted before the password is looked at, and only a right one is
// given back, so that parallel tries cannot overtake the counter. Names that
// no account has are counted like those of accounts, so waiting tells nobody
// who exists, and the log-in name and the address of one account apart, so that
// it tells nobody that they belong together. Who guesses at both has twice the
// tries in an hour, and no more until they are all used up. The store that
// comes with it counts for one process and forgets at its end; it checks no
// password itself.
package attempts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/merlon-dev/merlon/secrets"
)

// The kinds of a [Try]. Each is counted apart from the others.
const (
	Password = "password" // a password, on the log-in page or by Basic
	TOTP     = "totp"     // a code of an authenticator
	Recovery = "recovery" // a recovery code
	Reset    = "reset"    // the secret of a link
	Mail     = "mail"     // asking for a mail to be sent; never given back
	Backend  = "backend"  // a password, at a log-in that a backend owns; see NewBackend
)

// A Try is one guess.
type Try struct {
	Kind    string
	Account string     // the log-in name as account.Fold writes it, whether there is one or not
	Also    string     // the account's other log-in name, if there is one: a right try ends the row of failures there, too
	Client  netip.Addr // the address it comes from
	// Device is the hash of a device that the caller knows to be the
	// account's (account.Store.Device). It has a bucket of its own and does not wait for
	// what others did to the account. Empty if there is none.
	Device []byte
	// Password is what is tried. Only a keyed hash of it is kept, to see one
	// password tried on many accounts.
	Password string
	// Place is the log-in that a try of kind Backend is made at, such as its
	// site; two of them share no counts. Empty for Merlon's own.
	Place string
	// Host is the one of the Place that it is made at. Hosts may have users of
	// their own: a right try at one gives back what failed there, and nothing
	// that failed at another.
	Host string
	// Pass names what the client has done to be let in where others wait, such
	// as a proof of work, for a try of kind Backend. Such tries are counted in
	// buckets of their own, and few of them with one Pass.
	Pass string
}

// A Wait says how long to wait before the next try. The zero Wait says to go
// on. It must look the same to the client whatever it is for.
type Wait struct {
	For    time.Duration
	By     string // for the log: "account", "pair", "address", "subnet", "password", "device", "users", "addresses", "pass", "all"
	Locked bool   // waiting does not help: too many failures without a success
}

// OK reports that nothing has to be waited for.
func (w Wait) OK() bool { return w.For == 0 }

// A Throttle counts tries.
type Throttle struct {
	config Config
	store  Store
	spare  Store // counts while the store cannot
	macs   sync.Pool
	notify func(Notice)
	now    func() time.Time

	backend *BackendConfig // nil for Merlon's own log-in

	mu       sync.Mutex
	window   [2]rateWindow // failures of this minute and the one before
	told     map[toldKey]time.Time
	strainTo time.Time // a backend's log-in: thresholds are tight until then
}

// New returns a Throttle that counts in s, or in a store of its own if that is
// nil. notify is told what somebody should know; it must return soon, and may
// be nil.
func New(c Config, k secrets.Key, s Store, notify func(Notice)) (*Throttle, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	own := NewMemory(c.Places)
	if s == nil {
		s = own
	}
	if notify == nil {
		notify = func(Notice) {}
	}
	t := &Throttle{config: c, store: s, spare: own, notify: notify, now: time.Now, told: map[toldKey]time.Time{}}
	key := k.Derive("merlon attempts")
	t.macs.New = func() any { return &mac{hash: hmac.New(sha256.New, key)} }
	return t, nil
}

// Begin counts a try, before it is looked at, or says how long to wait. A try
// that has to wait is not counted. The Ticket must be told what came of it;
// one that is forgotten stays counted as a failure.
func (t *Throttle) Begin(ctx context.Context, try Try) (*Ticket, Wait) {
	now := t.now()
	strained := t.strained(now)
	k := &Ticket{throttle: t, try: try, at: now}
	if len(try.Device) > 0 && try.Kind != Mail {
		k.buckets = t.deviceBuckets(try)
		if w := t.reserve(ctx, k, now); !w.Locked {
			return k.unless(w)
		}
		// So many failures do not look like the owner any more.
	}
	k.buckets = t.strangerBuckets(try, strained)
	return k.unless(t.reserve(ctx, k, now))
}

func (k *Ticket) unless(w Wait) (*Ticket, Wait) {
	if w.OK() {
		return k, w
	}
	return nil, w
}

func (t *Throttle) reserve(ctx context.Context, k *Ticket, now time.Time) Wait {
	k.store = t.store
	r, err := t.store.Reserve(ctx, k.buckets, now)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.tell(Notice{Kind: StoreFailed, Time: now, Err: err}, "")
	}
	if err != nil {
		// What others have counted is not known here, so less is free.
		k.store, k.buckets = t.spare, stricter(k.buckets)
		if r, err = t.spare.Reserve(ctx, k.buckets, now); err != nil {
			return Wait{For: time.Second, By: "store"}
		}
	}
	k.counts = r.Counts
	if r.Wait == 0 {
		return Wait{}
	}
	b := k.buckets[r.By]
	t.warn(k.try, b, r, now)
	return Wait{For: r.Wait, By: b.name, Locked: r.Locked}
}

// stricter returns buckets of which a quarter is free.
func stricter(buckets []Bucket) []Bucket {
	buckets = slices.Clone(buckets)
	for i := range buckets {
		buckets[i].Schedule.Free = max(1, buckets[i].Schedule.Free/4)
	}
	return buckets
}

// Forgive forgets all failures of an account, by its log-in names: for
// administrators, and after its owner has proved it by a link and all factors
// it has.
func (t *Throttle) Forgive(ctx context.Context, names ...string) error {
	var refunds []Refund
	for _, name := range names {
		for _, kind := range []string{Password, TOTP, Recovery, Reset} {
			refunds = append(refunds, Refund{Key: t.bucketKey(kind, "account", name), All: true})
		}
	}
	err := t.store.Refund(ctx, refunds, t.now())
	return errors.Join(err, t.spare.Refund(ctx, refunds, t.now()))
}

// A Ticket is a try that may be looked at.
type Ticket struct {
	throttle *Throttle
	try      Try
	buckets  []Bucket
	counts   []uint32
	store    Store
	at       time.Time
	once     sync.Once
}

// Failed says that the try was wrong.
func (k *Ticket) Failed() {
	k.once.Do(func() { k.throttle.failed(k) })
}

// Succeeded says that the try was right. What this client failed before on
// this account is forgotten. Failures of others on the account stay, and so do
// failures of this client on other accounts: a guesser who has an account of
// his own gains nothing by logging in to it.
func (k *Ticket) Succeeded() {
	k.once.Do(func() {
		if k.try.Kind == Mail {
			return
		}
		k.throttle.succeeded(k.throttle.now())
		k.giveBack(true)
	})
}

// Void says that the try could not be looked at: the store of accounts is
// down, say. It is not counted.
func (k *Ticket) Void() {
	k.once.Do(func() { k.giveBack(false) })
}

func (k *Ticket) giveBack(success bool) {
	refunds := make([]Refund, 0, len(k.buckets))
	own := uint32(1) // what this client has failed on this account
	for i, b := range k.buckets {
		if b.name == "pair" {
			own = max(own, k.counts[i])
		}
	}
	for i, b := range k.buckets {
		if k.counts[i] == 0 {
			continue
		}
		r := Refund{Key: b.Key, Member: b.Member, Count: 1, At: k.at}
		switch {
		case !success:
		case b.name == "pair" || b.name == "device":
			r.All = true
		case b.name == "account":
			r.Count, r.Success = own, true
		}
		refunds = append(refunds, r)
	}
	now := k.throttle.now()
	if success && k.try.Also != "" {
		refunds = append(refunds, Refund{Key: k.throttle.tryKey(k.try, "account", k.try.Also), Success: true})
	}
	if success && len(k.try.Device) > 0 {
		// Others' failures were not consecutive; how long they wait stays.
		t, try := k.throttle, k.try
		refunds = append(refunds,
			Refund{Key: t.tryKey(try, "account", try.Account), Success: true},
			Refund{Key: t.tryKey(try, "device", try.Account, string(try.Device)), All: true})
	}
	if err := k.store.Refund(context.Background(), refunds, now); err != nil {
		k.throttle.tell(Notice{Kind: StoreFailed, Time: now, Err: err}, "")
	}
}

// deviceBuckets are those of the owner's browser: its own only.
func (t *Throttle) deviceBuckets(try Try) []Bucket {
	s := t.config.Device
	return []Bucket{{
		Key: t.tryKey(try, "device", try.Account, string(try.Device)), name: "device",
		Schedule: s, Most: t.config.Failures,
	}}
}

// strangerBuckets are those of anybody else.
func (t *Throttle) strangerBuckets(try Try, strained bool) []Bucket {
	c := &t.config
	client, subnet := places(try.Client)
	account, pair, most := c.Account, c.Pair, c.Failures
	switch try.Kind {
	case Password:
		// Counted by the name that was typed, and an account may have two.
		most = c.Failures / 2
	case TOTP, Recovery, Reset:
		account, pair = c.Code, c.Code
	case Mail:
		account, pair, most = c.Mail, c.Mail, 0
	}
	list := make([]Bucket, 0, 9)
	add := func(name string, s Schedule, most int, parts ...string) {
		switch name {
		case "address", "subnet", "pair", "password", "users":
			if strained {
				s.Free = max(1, s.Free/4)
			}
		}
		list = append(list, Bucket{Key: t.tryKey(try, name, parts...), name: name, Schedule: s, Most: most})
	}
	add("address", c.Address, 0, client)
	add("subnet", c.Subnet, 0, subnet)
	if try.Account != "" {
		if try.Host == "" {
			add("pair", pair, 0, try.Account, client)
		} else {
			add("pair", pair, 0, try.Account, client, try.Host)
		}
		add("account", account, most, try.Account)
	}
	if (try.Kind == Password || try.Kind == Backend) && try.Password != "" && try.Account != "" {
		tag := t.passwordTag(try.Password)
		add("password", c.Spray, 0, tag)
		list[len(list)-1].Member = t.tryKey(try, "member", tag, try.Account)
	}
	if t.backend != nil && try.Account != "" {
		add("users", t.backend.Users, 0, client)
		list[len(list)-1].Member = t.tryKey(try, "user", client, try.Account)
		add("addresses", t.backend.Addresses, 0, try.Account)
		list[len(list)-1].Member = t.tryKey(try, "user address", try.Account, client)
	}
	if t.backend != nil && try.Pass != "" {
		add("pass", Schedule{Free: t.backend.Passes, First: time.Hour, Longest: day, Forget: day}, 0, try.Pass)
	}
	if t.backend != nil && strained {
		add("all", t.backend.All, 0)
	}
	return list
}

const day = 24 * time.Hour

// tryKey names a bucket of a try.
func (t *Throttle) tryKey(try Try, name string, parts ...string) Key {
	kind := try.Kind
	if try.Place != "" {
		kind += "\x00" + try.Place
	}
	if try.Pass != "" {
		kind += "\x00pass"
	}
	return t.bucketKey(kind, name, parts...)
}

// passwordTag stands for a password without telling it: without the key it
// cannot be guessed, and it is too short to be sure of one.
func (t *Throttle) passwordTag(password string) string {
	k := t.sum("password", password[:min(len(password), maxPassword)])
	return string(k[:8])
}

// maxPassword is how much of a password is looked at; no longer one is right.
const maxPassword = 1024

// bucketKey names a bucket. It is keyed, so that nobody can choose names that
// fall together, and a common store holds no names.
func (t *Throttle) bucketKey(kind, name string, parts ...string) Key {
	return t.sum(kind+"\x00"+name, parts...)
}

// sum is a keyed hash of texts, each with its length before it.
func (t *Throttle) sum(what string, parts ...string) Key {
	m := t.macs.Get().(*mac)
	defer t.macs.Put(m)
	m.hash.Reset()
	m.buf = append(m.buf[:0], what...)
	for _, p := range parts {
		m.buf = binary.BigEndian.AppendUint64(append(m.buf, 0), uint64(len(p)))
		m.buf = append(m.buf, p...)
	}
	m.hash.Write(m.buf)
	m.buf = m.hash.Sum(m.buf)
	k := Key(m.buf[len(m.buf)-sha256.Size:][:16])
	clear(m.buf) // a password may have been in it
	return k
}

// A mac is an HMAC that is used again.
type mac struct {
	hash hash.Hash
	buf  []byte
}

// places returns what one subscriber can be told by, and the network around
// it: the address and its /24, or the /64 and its /48. An IPv4 address that a
// translator has put into 64:ff9b::/96 (RFC 6052) is itself again.
func places(a netip.Addr) (client, subnet string) {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return "none", "none"
	}
	if b := a.As16(); a.Is6() && [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b} {
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	narrow, wide := 32, 24
	if a.Is6() {
		narrow, wide = 64, 48
	}
	return netip.PrefixFrom(a, narrow).Masked().String(), netip.PrefixFrom(a, wide).Masked().String()
}
