package challenge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
)

// A Resolver looks names and addresses up; [net.Resolver] is one.
type Resolver interface {
	LookupAddr(ctx context.Context, addr string) (names []string, err error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A vendor is a search engine that says how its crawlers can be told: the name
// of their address is below one of its domains, and that name has the address.
type vendor struct {
	name    string
	agents  []string // as they stand in User-Agent
	domains []domain
}

// A domain is where crawlers' names are. Where others have names there, too,
// theirs have a beginning of their own.
type domain struct{ name, begin string }

// Vendors that publish only lists of addresses, such as DuckDuckGo, are not
// here: nothing is fetched.
var vendors = [...]vendor{
	// developers.google.com/search/docs/crawling-indexing/verifying-googlebot;
	// user-triggered fetchers, below other names, fetch for anybody.
	{"google", []string{"Googlebot", "Google-InspectionTool", "GoogleOther", "AdsBot-Google", "Mediapartners-Google", "Storebot-Google", "APIs-Google"},
		[]domain{{"googlebot.com", ""}, {"google.com", "rate-limited-proxy-"}}},
	// bing.com/webmasters/help/how-to-verify-bingbot-3905dc26
	{"bing", []string{"bingbot", "BingPreview", "adidxbot", "msnbot"}, []domain{{"search.msn.com", ""}}},
	// support.apple.com/en-us/119829
	{"apple", []string{"Applebot"}, []domain{{"applebot.apple.com", ""}}},
	// yandex.com/support/webmaster/robot-workings/check-yandex-robots.html
	{"yandex", []string{"Yandex"}, []domain{{"yandex.com", ""}, {"yandex.net", ""}, {"yandex.ru", ""}}},
	// help.baidu.com/question?prod_id=99&class=0&id=3001: *.baidu.com and
	// *.baidu.jp, of which the crawlers are these.
	{"baidu", []string{"Baiduspider"}, []domain{{"crawl.baidu.com", ""}, {"crawl.baidu.jp", ""}}},
	// napoveda.seznam.cz/en/seznambot-crawler
	{"seznam", []string{"SeznamBot"}, []domain{{"seznam.cz", "fulltextrobot-"}}},
}

// vendorOf returns whose crawler an agent says that it is, or nil.
func vendorOf(agent string) *vendor {
	for i := range vendors {
		for _, a := range vendors[i].agents {
			if strings.Contains(agent, a) {
				return &vendors[i]
			}
		}
	}
	return nil
}

// has reports whether a name is one of the vendor's crawlers.
func (v *vendor) has(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, d := range v.domains {
		if strings.HasSuffix(name, "."+d.name) && strings.HasPrefix(name, d.begin) {
			return true
		}
	}
	return false
}

const (
	lookUpTime  = 2 * time.Second
	lookUps     = 8   // at once
	waitingMost = 256 // requests, and look-ups that wait for their turn
	namesMost   = 4   // of one address that are looked at

	yesLasts   = 24 * time.Hour
	noLasts    = time.Hour
	brokeLasts = time.Minute // the answer to a look-up that failed
	keptMost   = 8192        // answers of each kind, twice
)

// Crawlers knows which addresses are search engines' crawlers, by
// forward-confirmed reverse DNS. It outlives reloads, and serves all sites.
// A request waits for an answer for two seconds at most; where too many wait,
// it is none.
type Crawlers struct {
	names Resolver
	turns chan struct{}

	mu      sync.Mutex
	waiting int
	flights map[crawler]*flight
	yes, no answers
}

type crawler struct {
	vendor string
	client netip.Addr // as clientOf says
}

// A flight is a look-up under way.
type flight struct {
	done chan struct{}
	ok   bool
}

// NewCrawlers returns Crawlers that asks a resolver, such as
// net.DefaultResolver.
func NewCrawlers(r Resolver) *Crawlers {
	return &Crawlers{names: r, turns: make(chan struct{}, lookUps), flights: map[crawler]*flight{}}
}

// Sent reports whether a request comes from a crawler that its agent says it
// is, as the names of its address confirm.
func (c *Crawlers) Sent(r *merlon.Request) bool {
	v := vendorOf(one(r, "User-Agent"))
	return v != nil && r.Client.IsValid() && c.confirm(r.Context(), v, r.Client, r.Received)
}

// confirm reports whether an address is one of the vendor's crawlers.
func (c *Crawlers) confirm(ctx context.Context, v *vendor, a netip.Addr, now time.Time) bool {
	key := crawler{v.name, merlon.Subscriber(a)}
	c.mu.Lock()
	if c.yes.has(key, now) {
		c.mu.Unlock()
		return true
	}
	f := c.flights[key]
	if c.no.has(key, now) || c.waiting >= waitingMost || f == nil && len(c.flights) >= waitingMost {
		c.mu.Unlock()
		return false
	}
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.flights[key] = f
		go c.lookUp(f, key, v, a, now)
	}
	c.waiting++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.waiting--
		c.mu.Unlock()
	}()
	select {
	case <-f.done: // after lookUpTime at the latest
		return f.ok
	case <-ctx.Done():
		return false
	}
}

// lookUp finds the answer of one flight and keeps it, also if nobody waits for
// it any more.
func (c *Crawlers) lookUp(f *flight, key crawler, v *vendor, a netip.Addr, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), lookUpTime)
	defer cancel()
	var ok, asked bool
	var err error
	select {
	case c.turns <- struct{}{}:
		asked = true
		ok, err = c.ask(ctx, v, a)
		<-c.turns
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ok:
		c.yes.keep(key, now.Add(yesLasts))
	case err != nil:
		c.no.keep(key, now.Add(brokeLasts))
	case asked:
		c.no.keep(key, now.Add(noLasts))
	}
	f.ok = ok
	delete(c.flights, key)
	close(f.done)
}

// ask asks for the names of the address, and for the addresses of those. An
// error means that there was no answer.
func (c *Crawlers) ask(ctx context.Context, v *vendor, a netip.Addr) (bool, error) {
	names, err := c.names.LookupAddr(ctx, a.String())
	if err != nil && len(names) == 0 {
		return false, unanswered(err)
	}
	var failed error
	for _, name := range names[:min(len(names), namesMost)] {
		if !v.has(name) {
			continue
		}
		// With a dot at its end it is looked up as it stands.
		found, err := c.names.LookupNetIP(ctx, "ip", strings.TrimSuffix(name, ".")+".")
		if err != nil {
			failed = unanswered(err)
			continue
		}
		for _, b := range found {
			if b.Unmap() == a {
				return true, nil
			}
		}
	}
	return false, failed
}

// unanswered returns err, unless it says that there is no such name.
func unanswered(err error) error {
	if de, ok := errors.AsType[*net.DNSError](err); ok && de.IsNotFound {
		return nil
	}
	return err
}

// answers are kept in two halves: when the younger is full, it becomes the
// older one, which is forgotten.
type answers struct{ young, old map[crawler]time.Time }

func (a *answers) has(k crawler, now time.Time) bool {
	until, ok := a.young[k]
	if !ok {
		until = a.old[k]
	}
	return now.Before(until)
}

func (a *answers) keep(k crawler, until time.Time) {
	if a.young == nil || len(a.young) >= keptMost {
		a.young, a.old = map[crawler]time.Time{}, a.young
	}
	a.young[k] = until
}
