package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	floodClients = 64
	floodLength  = 8 * time.Second
	floodQuiet   = 2 * time.Second
	floodPause   = 10 * time.Millisecond
)

// A form is how a browser logs in at a gateway.
type form struct {
	name         string
	path         string
	cookie       string     // of the browser that was shown the form
	hidden       url.Values // what the form has beside name and password
	user         string     // the field of the name
	right, wrong int        // the statuses of the answers
}

// wire is one try.
func (f *form) wire(name, pass string) []byte {
	fields := url.Values{f.user: {name}, "password": {pass}}
	for k, v := range f.hidden {
		fields[k] = v
	}
	return request("POST", f.path, f.cookie, fields.Encode())
}

// request is what a browser sends that opens a page or sends a form, as a proxy
// passes it on that has taken TLS off. Each is from another network.
func request(method, path, cookie, body string) []byte {
	var w strings.Builder
	fmt.Fprintf(&w, "%s %s HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: 2001:%x:%x::1\r\nX-Forwarded-Proto: https\r\nAccept: text/html\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: same-origin\r\n",
		method, path, benchSite, 0x1000+rand.IntN(0x1000), rand.IntN(1<<16))
	if cookie != "" {
		fmt.Fprintf(&w, "Cookie: %s\r\n", cookie)
	}
	if method == http.MethodPost {
		fmt.Fprintf(&w, "Origin: https://%s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n", benchSite, len(body))
	}
	fmt.Fprintf(&w, "\r\n%s", body)
	return []byte(w.String())
}

// fetch asks for one page, on a connection of its own.
func fetch(addr string, wire []byte) (*http.Response, string, error) {
	c := client{addr: addr}
	defer c.close()
	if err := c.open(); err != nil {
		return nil, "", err
	}
	if _, err := c.conn.Write(wire); err != nil {
		return nil, "", err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

// cookies are those of an answer, as they are sent back.
func cookies(res *http.Response) string {
	var all []string
	for _, c := range res.Cookies() {
		all = append(all, c.Name+"="+c.Value)
	}
	return strings.Join(all, "; ")
}

var hiddenField = regexp.MustCompile(`name="csrf" value="([^"]*)"`)

// merlonForm opens Merlon's log-in page.
func merlonForm(p *peer) (form, error) {
	f := form{path: "/.merlon/login", user: "name", right: http.StatusOK, wrong: http.StatusForbidden}
	res, text, err := fetch(p.addr, request("GET", f.path, "", ""))
	if err != nil {
		return f, err
	}
	found := hiddenField.FindStringSubmatch(text)
	if found == nil {
		return f, fmt.Errorf("there is none: %s\n%s", res.Status, text)
	}
	f.cookie, f.hidden = cookies(res), url.Values{"csrf": {html.UnescapeString(found[1])}}
	return f, nil
}

// A flood is many who try to log in at once, and somebody who is signed in.
type flood struct {
	form   form
	peer   *peer
	cookie string // of who is signed in

	mu           sync.Mutex
	status       map[int]int
	took         time.Duration
	before, most int64           // resident bytes
	quiet, busy  []time.Duration // how long the GETs took
}

func (f *flood) run(ctx context.Context, quiet, length time.Duration) (err error) {
	f.status = map[int]int{}
	if f.quiet, err = f.ordinary(ctx, quiet); err != nil {
		return err
	}
	f.before = f.peer.rss()
	f.peer.forgetMost()
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, floodClients)
	began := time.Now()
	for n := range floodClients {
		wg.Go(func() { errs[n] = f.guess(ctx, n) })
	}
	f.busy, err = f.ordinary(ctx, length)
	wg.Wait()
	f.took, f.most = time.Since(began), f.peer.mostRSS()
	return errors.Join(append(errs, err)...)
}

// guess is one client, which tries again as soon as it is answered.
func (f *flood) guess(ctx context.Context, number int) error {
	c := client{addr: f.peer.addr}
	defer c.close()
	for n := number; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("user%d", (number+n/2)%floodAccounts)
		pass := benchPassword(name)
		if n%2 == 1 {
			pass = fmt.Sprintf("wrong for the %d. time by %d", n, number)
		}
		status, err := c.ask(f.form.wire(name, pass))
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.status[status]++
		f.mu.Unlock()
	}
	return nil
}

// ordinary opens a page now and then, and returns how long it took, sorted.
func (f *flood) ordinary(ctx context.Context, length time.Duration) ([]time.Duration, error) {
	c := client{addr: f.peer.addr}
	defer c.close()
	var took []time.Duration
	tick := time.NewTicker(floodPause)
	defer tick.Stop()
	for end := time.Now().Add(length); ctx.Err() == nil && time.Now().Before(end); <-tick.C {
		wire := request("GET", "/orders", f.cookie, "")
		began := time.Now()
		status, err := c.ask(wire)
		if err != nil {
			return nil, err
		}
		if status != http.StatusOK {
			return nil, fmt.Errorf("who is signed in was answered %d", status)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

func (f *flood) print() {
	right, wrong := f.status[f.form.right], f.status[f.form.wrong]
	times := func(v []time.Duration) string {
		if len(v) == 0 {
			return "none"
		}
		return fmt.Sprintf("%.1f / %.1f", µs(v[len(v)/2])/1000, µs(v[len(v)*99/100])/1000)
	}
	fmt.Printf("| %s | %.1f | %d | %d | %d | %d | %d | %d → %d | %s | %s |\n", f.form.name, float64(right+wrong)/f.took.Seconds(), right, wrong,
		f.status[http.StatusServiceUnavailable], f.status[http.StatusTooManyRequests],
		others(f.status, f.form.right, f.form.wrong, http.StatusServiceUnavailable, http.StatusTooManyRequests),
		f.before>>20, f.most>>20, times(f.quiet), times(f.busy))
}

// forgetMost lets the kernel forget the most memory that a process had.
func (p *peer) forgetMost() {
	for _, pid := range p.pids() {
		// Where it is not allowed, the most includes the start.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	}
}

// mostRSS is the most memory that the process had since then.
func (p *peer) mostRSS() int64 {
	var sum int64
	for _, pid := range p.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		if _, after, ok := strings.Cut(string(text), "VmHWM:"); ok {
			var kib int64
			_, _ = fmt.Sscan(after, &kib) // the kernel's own number
			sum += kib << 10
		}
	}
	return sum
}
