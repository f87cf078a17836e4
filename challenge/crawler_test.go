package challenge_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/merlontest"
)

// nobody knows no names.
type nobody struct{}

var notFound = &net.DNSError{Err: "no such host", IsNotFound: true}

func (nobody) LookupAddr(context.Context, string) ([]string, error) { return nil, notFound }
func (nobody) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, notFound
}

// zone is what a name server of the test knows.
type zone struct {
	ptr, a map[string][]string // by address; by name
	asked  atomic.Int64
	mute   atomic.Bool
}

// serve starts a name server, and returns a resolver that asks it.
func (z *zone) serve(t *testing.T) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	s := &dns.Server{PacketConn: pc, Handler: z, NotifyStartedFunc: func() { close(up) }}
	stopped := make(chan error, 1)
	go func() { stopped <- s.ActivateAndServe() }()
	<-up
	t.Cleanup(func() {
		_ = s.Shutdown()
		<-stopped
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.asked.Add(1)
	if z.mute.Load() {
		return
	}
	m := new(dns.Msg)
	m.SetReply(q)
	name := q.Question[0].Name
	known := false
	switch q.Question[0].Qtype {
	case dns.TypePTR:
		for addr, names := range z.ptr {
			if rev, _ := dns.ReverseAddr(addr); rev == name {
				for _, n := range names {
					known = true
					m.Answer = append(m.Answer, &dns.PTR{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: 60}, Ptr: n})
				}
			}
		}
	case dns.TypeA, dns.TypeAAAA:
		for _, text := range z.a[strings.ToLower(name)] {
			known = true
			ip := net.ParseIP(text)
			switch v4 := ip.To4(); {
			case v4 != nil && q.Question[0].Qtype == dns.TypeA:
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: v4})
			case v4 == nil && q.Question[0].Qtype == dns.TypeAAAA:
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeAAAA, Class: dns.ClassINET, Ttl: 60}, AAAA: ip})
			}
		}
	}
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}

const (
	google = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
	bing   = "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)"
)

func names() *zone {
	return &zone{
		ptr: map[string][]string{
			"192.0.2.10":  {"crawl-192-0-2-10.googlebot.com."},
			"192.0.2.11":  {"crawl.googlebot.com.evil.example."},
			"192.0.2.12":  {"evilgooglebot.com."},
			"192.0.2.13":  {"crawl-192-0-2-10.googlebot.com."}, // whose address says so, but not google
			"192.0.2.14":  {"host.example.", "CRAWL-14.GoogleBot.com."},
			"192.0.2.15":  {"msnbot-15.search.msn.com."},
			"192.0.2.16":  {"google-proxy-16.google.com."},
			"192.0.2.17":  {"rate-limited-proxy-17.google.com."},
			"192.0.2.18":  {"a.example.", "b.example.", "c.example.", "d.example.", "crawl-18.googlebot.com."},
			"192.0.2.19":  {"gone.googlebot.com."},
			"2001:db8::1": {"crawl-v6.googlebot.com."},
		},
		a: map[string][]string{
			"crawl-192-0-2-10.googlebot.com.":   {"192.0.2.10"},
			"crawl.googlebot.com.evil.example.": {"192.0.2.11"},
			"evilgooglebot.com.":                {"192.0.2.12"},
			"crawl-14.googlebot.com.":           {"192.0.2.99", "192.0.2.14"},
			"msnbot-15.search.msn.com.":         {"192.0.2.15"},
			"google-proxy-16.google.com.":       {"192.0.2.16"},
			"rate-limited-proxy-17.google.com.": {"192.0.2.17"},
			"crawl-18.googlebot.com.":           {"192.0.2.18"},
			"crawl-v6.googlebot.com.":           {"2001:db8::1"},
		},
	}
}

func crawl(t testing.TB, agent, client string, now time.Time) *merlon.Request {
	r := merlontest.Request(t, "GET /page"+page+"\nUser-Agent: "+agent)
	r.Site, r.Client, r.Received = site, netip.MustParseAddr(client), now
	return r
}

func TestCrawlers(t *testing.T) {
	z := names()
	c := challenge.NewCrawlers(z.serve(t))
	all := guard(t, challenge.Config{When: challenge.Always}, func(e *challenge.Env) { e.Crawlers = c })
	one := guard(t, challenge.Config{When: challenge.Always, Allow: []challenge.Allow{{Kind: "no-defaults"}, {Crawlers: challenge.List{"bing"}}}}, func(e *challenge.Env) { e.Crawlers = c })
	for _, row := range []struct {
		name, agent, client string
		g                   *challenge.Guard
		ok                  bool
	}{
		{"Googlebot", google, "192.0.2.10", all, true},
		{"Googlebot by IPv6", google, "2001:db8::1", all, true},
		{"the second of two names and addresses", google, "192.0.2.14", all, true},
		{"a proxy of google's for crawlers", google, "192.0.2.17", all, true},
		{"Bing", bing, "192.0.2.15", all, true},
		{"Bing, as the rule says", bing, "192.0.2.15", one, true},
		{"Googlebot, which the rule leaves out", google, "192.0.2.10", one, false},
		{"Bing's name from google's address", bing, "192.0.2.10", all, false},
		{"a browser at a crawler's address", "Mozilla/5.0", "192.0.2.10", all, false},
		{"no name", google, "192.0.2.1", all, false},
		{"a name below another domain", google, "192.0.2.11", all, false},
		{"a domain that ends so", google, "192.0.2.12", all, false},
		{"a name that is another's", google, "192.0.2.13", all, false},
		{"a name that is gone", google, "192.0.2.19", all, false},
		{"a proxy of google's for anybody", google, "192.0.2.16", all, false},
		{"many names", google, "192.0.2.18", all, false},
	} {
		d := row.g.Check(crawl(t, row.agent, row.client, time.Now()))
		if d.Passed() != row.ok {
			t.Errorf("%s: %s", row.name, d.Reason)
		}
		if !row.ok && row.agent == google && row.g == all && (len(d.Findings) != 1 || !strings.Contains(d.Findings[0].Message, "google")) {
			t.Errorf("%s: the operator is not told: %+v", row.name, d.Findings)
		}
	}
	r := crawl(t, google, "192.0.2.10", time.Now())
	r.Header.Add("User-Agent", bing)
	if d := all.Check(r); d.Passed() {
		t.Error("two agents pass")
	}
	for name, agent := range challenge.Vendors() {
		if g := guard(t, challenge.Config{Allow: []challenge.Allow{{Crawlers: challenge.List{name}}}}); g == nil || agent == "" {
			t.Errorf("%s", name)
		}
	}
}

func TestAnswersAreKept(t *testing.T) {
	z := names()
	g := guard(t, challenge.Config{When: challenge.Always}, func(e *challenge.Env) { e.Crawlers = challenge.NewCrawlers(z.serve(t)) })
	now := time.Now()
	steps := func(client string, ok bool, later time.Duration, asks bool) {
		t.Helper()
		before := z.asked.Load()
		if d := g.Check(crawl(t, google, client, now.Add(later))); d.Passed() != ok {
			t.Errorf("%s, %s later: %s", client, later, d.Reason)
		}
		if asked := z.asked.Load() > before; asked != asks {
			t.Errorf("%s, %s later: asked: %v", client, later, asked)
		}
	}
	steps("192.0.2.10", true, 0, true)
	steps("192.0.2.10", true, 24*time.Hour-time.Second, false)
	steps("192.0.2.10", true, 24*time.Hour, true)
	steps("192.0.2.12", false, 0, true)
	steps("192.0.2.12", false, time.Hour-time.Second, false)
	steps("192.0.2.12", false, time.Hour, true)
	steps("2001:db8::1", true, 0, true)
	steps("2001:db8::2", true, 0, false) // of the same network
	steps("2001:db8:0:1::1", false, 0, true)
}

// gate is a resolver that answers when it is let.
type gate struct {
	open  chan struct{}
	now   atomic.Int64
	most  atomic.Int64
	asked atomic.Int64
	err   error
}

func (g *gate) LookupAddr(ctx context.Context, a string) ([]string, error) {
	g.asked.Add(1)
	n := g.now.Add(1)
	for m := g.most.Load(); n > m && !g.most.CompareAndSwap(m, n); m = g.most.Load() {
	}
	defer g.now.Add(-1)
	select {
	case <-g.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if g.err != nil {
		return nil, g.err
	}
	return []string{"x.googlebot.com."}, nil
}

func (g *gate) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("198.51.100.1")}, nil
}

// A flood of fakes holds no more than so many requests, asks for no more than
// so many names at once, and others are not held up.
func TestManyFakes(t *testing.T) {
	s := &gate{open: make(chan struct{})}
	c := challenge.NewCrawlers(s)
	g := guard(t, challenge.Config{When: challenge.Always}, func(e *challenge.Env) { e.Crawlers = c })
	now := time.Now()
	var wg sync.WaitGroup
	for i := range challenge.WaitingMost {
		r := crawl(t, google, fmt.Sprintf("10.0.%d.%d", i/200, i%200), now)
		wg.Go(func() {
			if d := g.Check(r); d.Passed() {
				t.Errorf("%s passed", r.Client)
			}
		})
	}
	for c.Waiting() < challenge.WaitingMost {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	if d := g.Check(crawl(t, google, "10.1.0.1", now)); d.Passed() || time.Since(begin) > time.Second {
		t.Errorf("one more had to wait %s: %s", time.Since(begin), d.Reason)
	}
	if d := g.Check(crawl(t, "Mozilla/5.0", "10.1.0.2", now)); d.Passed() {
		t.Errorf("a browser: %s", d.Reason)
	}
	close(s.open)
	wg.Wait()
	if n := s.most.Load(); n > challenge.LookUps {
		t.Errorf("%d look-ups at once", n)
	}
	if c.Waiting() != 0 {
		t.Errorf("%d still wait", c.Waiting())
	}
	if d := g.Check(crawl(t, google, "198.51.100.1", now)); d.Reason != challenge.Exempt {
		t.Errorf("a true one afterwards: %s", d.Reason)
	}
}

// Requests at once for one address are one look-up; a client that goes away
// waits no more.
func TestOneLookUp(t *testing.T) {
	s := &gate{open: make(chan struct{})}
	c := challenge.NewCrawlers(s)
	g := guard(t, challenge.Config{When: challenge.Always}, func(e *challenge.Env) { e.Crawlers = c })
	now := time.Now()
	var wg sync.WaitGroup
	wait := func(n int) {
		for range n - c.Waiting() {
			r := crawl(t, google, "198.51.100.1", now)
			wg.Go(func() {
				if d := g.Check(r); d.Reason != challenge.Exempt {
					t.Errorf("%s", d.Reason)
				}
			})
		}
		for c.Waiting() < n {
			time.Sleep(time.Millisecond)
		}
	}
	wait(20)
	gone := crawl(t, google, "198.51.100.1", now)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	gone.Request = gone.WithContext(ctx)
	if d := g.Check(gone); d.Passed() {
		t.Errorf("who is gone waited for the answer: %s", d.Reason)
	}
	wait(challenge.WaitingMost)
	if d := g.Check(crawl(t, google, "198.51.100.1", now)); d.Passed() {
		t.Errorf("one more waited: %s", d.Reason)
	}
	close(s.open)
	wg.Wait()
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d look-ups", n)
	}
}

// A name server that is silent or broken lets nobody in, and is asked again
// soon.
func TestSilentNameServer(t *testing.T) {
	z := names()
	z.mute.Store(true)
	g := guard(t, challenge.Config{When: challenge.Always}, func(e *challenge.Env) { e.Crawlers = challenge.NewCrawlers(z.serve(t)) })
	now := time.Now()
	if d := g.Check(crawl(t, google, "192.0.2.10", now)); d.Passed() || d.Code() != http.StatusForbidden {
		t.Errorf("%s", d.Reason)
	}
	if took := time.Since(now); took > 10*time.Second {
		t.Errorf("waited %s", took)
	}
	z.mute.Store(false)
	if d := g.Check(crawl(t, google, "192.0.2.10", now.Add(59*time.Second))); d.Passed() {
		t.Error("the failure is not remembered for a while")
	}
	if d := g.Check(crawl(t, google, "192.0.2.10", now.Add(time.Minute))); !d.Passed() {
		t.Errorf("it is not asked again: %s", d.Reason)
	}
	s := &gate{open: make(chan struct{}), err: errors.New("refused")}
	close(s.open)
	g = guard(t, challenge.Config{When: challenge.Always}, func(e *challenge.Env) { e.Crawlers = challenge.NewCrawlers(s) })
	if d := g.Check(crawl(t, google, "198.51.100.1", now)); d.Passed() {
		t.Error("a broken name server lets them in")
	}
}

func TestAnswersAreBounded(t *testing.T) {
	c := challenge.NewCrawlers(nobody{})
	g := guard(t, challenge.Config{When: challenge.Always}, func(e *challenge.Env) { e.Crawlers = c })
	r := crawl(t, google, "10.0.0.0", time.Now())
	for range 3 * challenge.KeptMost {
		r.Client = r.Client.Next()
		g.Check(r)
	}
	if n := c.Kept(); n > 2*challenge.KeptMost || n < challenge.KeptMost {
		t.Errorf("%d answers are kept", n)
	}
}
