package attempts

import (
	"net/netip"
	"time"
)

// The kinds of a [Notice].
const (
	// AccountAttacked: many tries of one account failed. Its owner should be
	// told.
	AccountAttacked = "account-attacked"
	// AccountLocked: so many that only a known device, a link or an
	// administrator helps.
	AccountLocked = "account-locked"
	// PasswordSprayed: one password was tried on many accounts.
	PasswordSprayed = "password-sprayed"
	// AddressBlocked: one address or network failed so often that it waits.
	AddressBlocked = "address-blocked"
	// RateHigh: many tries fail, all accounts together.
	RateHigh = "failure-rate-high"
	// CanaryTried: somebody tried an account that nobody has, and that is known
	// only from where it was left to be found.
	CanaryTried = "canary-tried"
	// AnswersMisread: a backend's log-in seems to take any password for one
	// account. What it answers to a wrong one is not told right in failed.
	AnswersMisread = "answers-misread"
	// StoreFailed: the store cannot count; this process counts alone.
	StoreFailed = "attempts-store-failed"
)

// A Notice is what somebody should know. The same is told at most once an hour.
type Notice struct {
	Kind    string
	Time    time.Time
	Account string     // the log-in name that was tried, if it is about one
	Client  netip.Addr // the address of the last try
	Count   int
	Err     error
}

type toldKey struct{ kind, about string }

const (
	tellAgain = time.Hour
	maxTold   = 4096
)

// tell passes a notice on unless the same was told before.
func (t *Throttle) tell(n Notice, about string) {
	t.mu.Lock()
	k := toldKey{n.Kind, about}
	if at, ok := t.told[k]; ok && n.Time.Sub(at) < tellAgain {
		t.mu.Unlock()
		return
	}
	if len(t.told) >= maxTold {
		for k, at := range t.told {
			if n.Time.Sub(at) >= tellAgain {
				delete(t.told, k)
			}
		}
	}
	if len(t.told) >= maxTold { // rather tell too little than be made to flood
		t.mu.Unlock()
		return
	}
	t.told[k] = n.Time
	t.mu.Unlock()
	t.notify(n)
}

// A rateWindow counts the failures of one minute.
type rateWindow struct {
	minute    int64
	failed    int
	succeeded int // counted only for a backend's log-in
}

// strained reports whether more fails than is usual.
func (t *Throttle) strained(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.perMinute(now) > t.config.Alarm || now.Before(t.strainTo)
}

// perMinute is how many failed in the last minute; t.mu is held.
func (t *Throttle) perMinute(now time.Time) int {
	minute := now.Unix() / 60
	rest := float64(60-now.Unix()%60) / 60
	sum := 0.0
	for _, w := range t.window {
		switch w.minute {
		case minute:
			sum += float64(w.failed)
		case minute - 1:
			sum += rest * float64(w.failed)
		}
	}
	return int(sum)
}

// minute returns the counts of this minute; t.mu is held.
func (t *Throttle) minute(now time.Time) *rateWindow {
	w := &t.window[now.Unix()/60&1]
	if w.minute != now.Unix()/60 {
		*w = rateWindow{minute: now.Unix() / 60}
	}
	return w
}

func (t *Throttle) failed(k *Ticket) {
	if k.try.Kind == Mail {
		return
	}
	now := t.now()
	t.mu.Lock()
	if t.telling(k) {
		t.minute(now).failed++
	}
	rate := t.perMinute(now)
	high := t.unusual(now)
	t.mu.Unlock()
	if rate > t.config.Alarm || high {
		t.tell(Notice{Kind: RateHigh, Time: now, Count: rate}, "")
	}
	for i, b := range k.buckets {
		if b.name == "password" && int(k.counts[i]) > b.Schedule.Free {
			t.tell(Notice{Kind: PasswordSprayed, Time: now, Client: k.try.Client, Count: int(k.counts[i])}, string(b.Key[:]))
		}
		if b.name == "account" && int(k.counts[i]) > b.Schedule.Free {
			t.tell(Notice{Kind: AccountAttacked, Time: now, Account: k.try.Account, Client: k.try.Client, Count: int(k.counts[i])}, k.try.Account)
		}
		if b.name == "account" && b.Most > 0 && int(k.counts[i]) >= b.Most {
			t.tell(Notice{Kind: AccountLocked, Time: now, Account: k.try.Account, Client: k.try.Client, Count: int(k.counts[i])}, k.try.Account)
		}
	}
}

// warn tells about a try that has to wait, where that means something.
func (t *Throttle) warn(try Try, b Bucket, r Result, now time.Time) {
	n := Notice{Time: now, Client: try.Client, Count: int(r.Counts[r.By])}
	switch b.name {
	case "account": // its count may have begun anew, if the owner logs in all the while
		if n.Kind, n.Account = AccountAttacked, try.Account; try.Kind != Mail {
			t.tell(n, try.Account)
		}
	case "password":
		n.Kind = PasswordSprayed
		t.tell(n, string(b.Key[:]))
	case "addresses":
		n.Kind, n.Account = AccountAttacked, try.Account
		t.tell(n, try.Account)
	case "address", "subnet", "users":
		n.Kind = AddressBlocked
		t.tell(n, string(b.Key[:]))
	}
}
