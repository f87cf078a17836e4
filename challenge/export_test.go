package challenge

import (
	"net/netip"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	LookUps     = lookUps
	WaitingMost = waitingMost
	KeptMost    = keptMost
	Window      = window
	WaitBurst   = waitBurst
	TokenLife   = tokenLife
)

// Solves is solves.
func Solves(token, nonce string, want int) bool { return solves(token, nonce, want) }

// Network is network.
func Network(text string) (netip.Prefix, error) { return network(text) }

// Waiting says how many requests wait for a look-up.
func (c *Crawlers) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting
}

// Kept says how many answers are kept.
func (c *Crawlers) Kept() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.yes.young) + len(c.yes.old) + len(c.no.young) + len(c.no.old)
}

// Vendors are the names of the search engines and one agent of each.
func Vendors() map[string]string {
	m := map[string]string{}
	for _, v := range vendors {
		m[v.name] = v.agents[0]
	}
	return m
}

// Pass returns the text of a pass for work, got at a time.
func Pass(k secrets.Key, site string, client netip.Addr, bits int, when time.Time) string {
	c := newToken(bits, 10*time.Second, when)
	c.id = [idSize]byte{1, 2, 3} // the same in every process of a fuzz test
	c.kind = kindWorked
	return newSealer(k, passPurpose).seal(c, site, merlon.Subscriber(client))
}

// OpensAs reports whether a text is what was sealed for a site and client.
func OpensAs(k secrets.Key, text, site string, client netip.Addr) bool {
	_, ok := newSealer(k, passPurpose).open(text, site, merlon.Subscriber(client))
	return ok
}

// PassText is passText.
func PassText(r *merlon.Request) (string, int) { return passText(r.Header) }

// Budgets says how many budgets the load keeps.
func (l *Load) Budgets() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.budgets)
}
