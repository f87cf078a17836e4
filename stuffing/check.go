package stuffing

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/attempts"
)

// A login is a request with tries that are under way.
type login struct {
	tries   []try
	tickets []*attempts.Ticket
	found   []device
	canary  *attempts.Try // nil if none is tried
	plain   bool          // it is a log-in as it is told, so that an answer may say that it was right
}

// rounds bounds how often a try that waits is taken up again: others may have
// been faster each time.
const rounds = 8

// Check counts the tries that r makes before the backend sees them, so that
// those that come at the same time cannot overtake each other.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	if !g.isLogin(r) {
		return merlon.Pass(NotLogin)
	}
	tries, d := g.read(r)
	if d != nil {
		return *d
	}
	if len(tries) == 0 {
		return merlon.Pass(NotLogin)
	}
	l := &login{tries: tries, found: g.devices.read(r), plain: g.plain(r) && tries[0].password != ""}
	for _, t := range tries {
		if g.canaries[t.user] {
			c := g.stranger(r, t)
			l.canary = &c
		}
	}
	begun := g.begin(r, l)
	switch {
	case l.canary == nil:
	case begun.Passed():
		begun.Reason = CanaryTried
	default:
		g.throttle.Canary(r.Context(), *l.canary)
	}
	return begun
}

func (g *Guard) stranger(r *merlon.Request, t try) attempts.Try {
	return attempts.Try{Kind: attempts.Backend, Place: r.Site, Host: hostOf(r), Account: t.user, Client: r.Client, Password: t.password}
}

// begin counts, keeps waiting, challenges or refuses.
func (g *Guard) begin(r *merlon.Request, l *login) merlon.Decision {
	pass := ""
	if g.env.Passed != nil && g.throttle.Strained() && g.anyStranger(r, l) {
		if pass = g.passed(r); pass == "" {
			return g.challenge(r, attempts.Wait{For: time.Second, By: "all"}, l)
		}
	}
	patience := g.c.Slow
	for range rounds {
		w := g.count(r, l, pass)
		switch {
		case w.OK():
			g.hold(r, l)
			return merlon.Pass(LoginTried)
		case !w.Locked && w.For <= patience && !g.env.Watch:
			if err := g.delay(r, w.For); err != nil {
				d := g.refuse(r, w, l)
				d.Err = err
				return d
			}
			patience -= w.For
		case g.env.Passed == nil || w.By == "device":
			return g.refuse(r, w, l)
		case pass == "":
			if pass = g.passed(r); pass == "" {
				return g.challenge(r, w, l)
			}
		case w.By == "pass":
			return g.challenge(r, w, l)
		default:
			return g.refuse(r, w, l)
		}
	}
	return g.refuse(r, attempts.Wait{For: time.Second, By: "all"}, l)
}

func (g *Guard) passed(r *merlon.Request) string {
	id, ok := g.env.Passed(r)
	if !ok {
		return ""
	}
	return "pass " + id
}

// device returns the id of the user's own browser. A request with several tries
// is nobody's own.
func (g *Guard) device(r *merlon.Request, l *login, t try) []byte {
	if len(l.tries) > 1 || t.user == "" || len(l.found) == 0 {
		return nil
	}
	return g.devices.known(l.found, placeOf(r), t.user)
}

func (g *Guard) anyStranger(r *merlon.Request, l *login) bool {
	for _, t := range l.tries {
		if g.device(r, l, t) == nil {
			return true
		}
	}
	return false
}

// count counts all tries of a request, or none.
func (g *Guard) count(r *merlon.Request, l *login, pass string) attempts.Wait {
	for _, t := range l.tries {
		a := g.stranger(r, t)
		a.Device, a.Pass = g.device(r, l, t), pass
		ticket, w := g.throttle.Begin(r.Context(), a)
		if !w.OK() {
			for _, t := range l.tickets {
				t.Void()
			}
			l.tickets = nil
			return w
		}
		l.tickets = append(l.tickets, ticket)
	}
	return attempts.Wait{}
}

// delay keeps a try waiting, unless too many are.
func (g *Guard) delay(r *merlon.Request, d time.Duration) error {
	defer g.delayed.Add(-1)
	if g.delayed.Add(1) > maxDelayed {
		return fmt.Errorf("%d tries are being kept waiting already", maxDelayed)
	}
	client := r.Client.Unmap().WithZone("")
	if client.Is6() {
		client = netip.PrefixFrom(client, 64).Masked().Addr()
	}
	if g.wait(client, 1) > maxDelayedEach {
		g.wait(client, -1)
		return fmt.Errorf("%d tries of this address are being kept waiting already", maxDelayedEach)
	}
	defer g.wait(client, -1)
	return g.sleep(r.Context(), d)
}

// wait counts those of an address that are kept waiting.
func (g *Guard) wait(client netip.Addr, n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n += g.waiting[client]
	g.waiting[client] = n
	if n == 0 {
		delete(g.waiting, client)
	}
	return n
}

func (g *Guard) challenge(r *merlon.Request, w attempts.Wait, l *login) merlon.Decision {
	d := g.refuse(r, w, l)
	d.Effect, d.Reason = merlon.Challenge, LoginChallenged
	return d
}

// refuse answers the same whatever had to wait, and whoever was tried.
func (g *Guard) refuse(_ *merlon.Request, w attempts.Wait, l *login) merlon.Decision {
	d := merlon.Refuse(http.StatusTooManyRequests, LoginRefused)
	d.Problem = quotaExceeded
	d.Header = http.Header{"Retry-After": {strconv.Itoa(int((w.For + time.Second - 1) / time.Second))}}
	message := "too many tries failed; the next after " + w.For.Round(time.Second).String()
	if w.Locked {
		message = "so many tries of this user failed in a row that only a browser that is known gets in"
	}
	f := merlon.Finding{Rule: w.By, Part: "log-in", Message: message}
	if len(l.tries) == 1 {
		f.Value = shorten(l.tries[0].user)
	}
	d.Findings = []merlon.Finding{f}
	if s := g.schedule(w.By); s > 0 && !w.Locked {
		d.Remedy = "backend_login:\n  " + w.By + ":\n    free: " + strconv.Itoa(2*s)
	}
	return d
}

// schedule returns what is free where many people may stand behind one count.
func (g *Guard) schedule(by string) int {
	switch by {
	case "address":
		return g.c.Address.Free
	case "users":
		return g.c.Users.Free
	case "subnet":
		return max(g.c.Subnet.Free, 300)
	}
	return 0
}

// sprung refuses who has a canary's password, as anybody is refused who has
// tried too often.
func sprung(c *attempts.Try) merlon.Decision {
	d := merlon.Refuse(http.StatusTooManyRequests, CanaryTried)
	d.Problem = quotaExceeded
	d.Header = http.Header{"Retry-After": {"64"}} // a wait that comes up in any schedule
	d.Findings = []merlon.Finding{{Part: "log-in", Value: shorten(c.Account), Message: "is a user that nobody is, and the password is right"}}
	return d
}

const shown = 120 // bytes of a client's value that a finding repeats

func shorten(s string) string {
	if len(s) <= shown {
		return s
	}
	return strings.ToValidUTF8(s[:shown], "") + "…"
}

func (g *Guard) hold(r *merlon.Request, l *login) {
	g.mu.Lock()
	g.underway[r] = l
	g.mu.Unlock()
}

// release returns the tries of r if nothing is known of them yet.
func (g *Guard) release(r *merlon.Request) *login {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.underway[r]
	delete(g.underway, r)
	return l
}
