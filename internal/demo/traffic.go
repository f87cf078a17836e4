package demo

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// traffic are the attacks of which no single request is one: too many, too
// dear, too slow, or looking for a way in.
func traffic() []Attack {
	all := []Attack{{
		Name: "decoy", Title: "Look for secrets where scanners look",
		Hole: "A file with the database's password lies among the pages, under the name it always has.",
		Twin: "Who follows a dead link goes on", attack: lookAround, twin: deadLink,
	}, {
		Name: "bots", Title: fmt.Sprintf("Have a script take %d of Friday's codes", kettles),
		Hole: "Whoever asks gets a code, be it a script that asks all night.",
		Twin: "A browser gets its code by itself", attack: takeCodes, twin: ownCode,
	}, {
		Name: "slow", Title: fmt.Sprintf("Keep %d requests unfinished", unfinished),
		Hole: fmt.Sprintf("The shop works on %d requests at a time, and waits for the rest of each for ever.", workers),
		Twin: "A form from a slow line arrives", attack: neverFinish, twin: slowLine,
	}}
	if !manyAddresses() {
		return all
	}
	// Those need that who attacks and who does not can be told apart.
	return append(all, Attack{
		Name: "scan", Title: fmt.Sprintf("Guess %d file names until one is there", years),
		Hole: "Only its name protects an export of all customers that lies among the pages.",
		Twin: "The scanner's neighbour sees no difference", attack: scan, twin: neighbour,
	}, Attack{
		Name: "walk", Title: fmt.Sprintf("Copy %d orders by counting up", walked),
		Hole: "Nobody notices that one visitor looks at everybody's orders.",
		Twin: "Buy something and reload that order all day", attack: walk, twin: reload,
	}, Attack{
		Name: "flood", Title: fmt.Sprintf("Flood the search with %d requests", flooded),
		Hole: "The search answers whoever asks, as often as they ask.",
		Twin: "Others search, and the sender after the wait", attack: flood, twin: flooder,
	}, Attack{
		Name: "hammer", Title: fmt.Sprintf("Ask for a slow report from %d places at once", hammers),
		Hole: "The shop makes as many reports at once as are asked for, and each slows down all others.",
		Twin: "Who asks for one meanwhile waits, and gets it", attack: hammer, twin: waitTurn,
	})
}

const (
	kettles    = 12
	unfinished = workers + 8
	years      = 40
	walked     = 26
	flooded    = 150
	hammers    = 30
)

// program asks for a page as a program does.
func (b *browser) program(path string) page { return b.ask(http.MethodGet, path, nil) }

// lookAround asks for a decoy, and then for what everybody may see.
func lookAround(b *browser) Shot {
	thief := b.another()
	s := thief.program("/.env").shows("the file shows the database's password", "DATABASE=postgres://")
	b.told(thief)
	thief.begin()
	thief.program("/")
	s.Then = thief.id
	return s
}

func deadLink(b *browser) Shot {
	own := b.another()
	for range 3 {
		own.get("/product/harbour-kettel")
	}
	own.begin()
	s := own.get(reviewed).shows("the mug's page opens", "O&#39;Brien&#39;s mug")
	b.told(own)
	return s
}

var dropCode = regexp.MustCompile(`<strong id="code">(KETTLE-\w+)</strong>`)

// takeCodes says that it is a browser, and runs no scripts.
func takeCodes(b *browser) Shot {
	bot := b.another()
	codes := map[string]bool{}
	for range kettles {
		if m := dropCode.FindStringSubmatch(bot.get("/drop").body); m != nil {
			codes[m[1]] = true
		}
	}
	b.told(bot)
	return Shot{Worked: len(codes) == kettles, Evidence: fmt.Sprintf("%d codes, all different", len(codes))}
}

const challengePage = portal + "challenge"

// ownCode does what the page has a browser do: find a number that makes the
// hash of it and the page's token begin with zeros.
func ownCode(b *browser) Shot {
	own := b.another()
	p := own.get("/drop")
	if p.challenged() && strings.HasPrefix(p.leads(), challengePage) {
		p = own.get(p.leads())
		action, work := p.work()
		own.fill(p, action, "nonce", nonce(p.hidden(action)["token"], work))
		own.begin()
		p = own.get("/drop")
	}
	b.told(own)
	return Shot{Worked: dropCode.MatchString(p.body), Evidence: "the page shows a code"}
}

var workForm = regexp.MustCompile(`<form method="post" action="([^"]*)"[^>]* data-bits="(\d+)"`)

// work returns where the page's proof of work goes, and how many bits it has.
func (p page) work() (action string, zeros int) {
	m := workForm.FindStringSubmatch(p.body)
	if m == nil {
		return "", 0
	}
	zeros, err := strconv.Atoi(m[2])
	if err != nil || zeros > 24 {
		return "", 0
	}
	return m[1], zeros
}

func nonce(token string, zeros int) string {
	for n := 0; ; n++ {
		sum := sha256.Sum256([]byte(token + strconv.Itoa(n)))
		if bits.LeadingZeros32(uint32(sum[0])<<24|uint32(sum[1])<<16|uint32(sum[2])<<8|uint32(sum[3])) >= zeros {
			return strconv.Itoa(n)
		}
	}
}

// A trickle is a body that ends when the context does.
type trickle struct{ context.Context }

func (t trickle) Read([]byte) (int, error) {
	<-t.Done()
	return 0, t.Err()
}

// neverFinish begins requests and ends none, and looks whether others still get
// an answer.
func neverFinish(b *browser) Shot {
	ctx, cancel := context.WithCancel(b.ctx)
	thief := b.another()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range unfinished {
		wg.Go(func() {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.base.String()+"/register", trickle{ctx})
			if err != nil {
				return
			}
			r.ContentLength = 500
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if res, err := thief.http.Do(r); err == nil {
				_ = res.Body.Close() // it was refused
			}
		})
	}
	visitor := b.another()
	visitor.http.Timeout = 1500 * time.Millisecond
	for range 5 {
		time.Sleep(100 * time.Millisecond) // so that all have begun
		visitor.get("/")
		if visitor.err != nil {
			break
		}
	}
	if err, ok := errors.AsType[net.Error](visitor.err); ok && err.Timeout() {
		return Shot{Worked: true, Evidence: "nobody else is answered any more"}
	}
	b.told(visitor)
	return Shot{How: "unfinished requests wait at Merlon and are cut off there; others are served"}
}

// slowLine sends a form in pieces.
func slowLine(b *browser) Shot {
	own := b.another()
	name := "slow-" + marker()
	body := "username=" + name + "&password=" + marker()
	in, out := io.Pipe()
	go func() {
		for i := 0; i < len(body); i += 8 {
			if _, err := io.WriteString(out, body[i:min(i+8, len(body))]); err != nil {
				return // it is not wanted any more
			}
			time.Sleep(50 * time.Millisecond)
		}
		_ = out.Close() // never fails
	}()
	r, err := http.NewRequestWithContext(b.ctx, http.MethodPost, b.base.String()+"/register", in)
	if err != nil {
		b.failed(err)
		return Shot{}
	}
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	own.dress(r, ownPage)
	own.do(r)
	p := own.get("/account")
	b.told(own)
	return Shot{Worked: p.loggedInAs() == name, Evidence: "the account is opened"}
}

// scan guesses one year after the other.
func scan(b *browser) Shot {
	thief := b.another()
	for n := range years {
		year := strconv.Itoa(2026 - years + 1 + n)
		p := thief.program(leftExport(year))
		if p.status == http.StatusOK {
			return p.shows(leftExport(year)+" holds the customers' addresses", "14 Rope Walk")
		}
		if p.status != http.StatusNotFound && p.status != 0 {
			thief.begin()
			thief.note(p)
			break
		}
	}
	b.told(thief)
	return Shot{}
}

func neighbour(b *browser) Shot { return deadLink(b) }

var orderAddress = regexp.MustCompile(`(?s)<dt>Goes to</dt>\s*<dd>([^<]+)</dd>`)

// walk looks at one order after the other.
func walk(b *browser) Shot {
	thief := b.another()
	thief.join()
	found := 0
	for n := range walked {
		p := thief.get(fmt.Sprint("/orders/", firstCrewOrder+n))
		if p.status == http.StatusOK && orderAddress.MatchString(p.body) {
			found++
		}
	}
	b.told(thief)
	return Shot{Worked: found == walked, Evidence: fmt.Sprintf("%d customers' addresses", found)}
}

func reload(b *browser) Shot {
	own := b.another()
	own.join()
	own.form("/buy", ownPage, "slug", "heather-honey")
	m := orderLink.FindStringSubmatch(own.get("/account").body)
	if m == nil {
		b.told(own)
		return Shot{}
	}
	s := Shot{Worked: true}
	for range walked + 10 {
		if s = own.get(m[1]).shows("the page shows what was bought, each time", "Heather honey"); !s.Worked {
			break
		}
	}
	b.told(own)
	return s
}

const searched = "/search?q=honey"

func flood(b *browser) Shot {
	b.owner = b.another()
	answered := 0
	for range flooded {
		if b.owner.get(searched).status == http.StatusOK {
			answered++
		}
	}
	b.told(b.owner)
	return Shot{Worked: answered > flooded*3/4, Evidence: fmt.Sprintf("%d of %d are answered", answered, flooded)}
}

// flooder waits as it is told to, and no longer.
func flooder(b *browser) Shot {
	other := b.another()
	s := other.get(searched).shows("the honey is found", "Heather honey")
	b.told(other)
	if !s.Worked {
		return s
	}
	p := b.owner.get(searched)
	if wait, err := strconv.Atoi(p.header.Get("Retry-After")); err == nil && wait <= 5 {
		time.Sleep(time.Duration(wait) * time.Second)
	}
	b.owner.begin()
	s = b.owner.get(searched).shows("the honey is found", "Heather honey")
	b.told(b.owner)
	return s
}

// report asks for the year's report, and returns how many were made at once.
func (b *browser) report() (atOnce int) {
	var answer struct {
		AtOnce int `json:"at_once"`
	}
	if p := b.program("/api/report"); p.status == http.StatusOK {
		if err := json.Unmarshal([]byte(p.body), &answer); err != nil {
			b.failed(err)
		}
	}
	return answer.AtOnce
}

// hammer asks from as many addresses at the same time.
func hammer(b *browser) Shot {
	all := make([]*browser, hammers)
	for i := range all {
		all[i] = b.another()
	}
	atOnce := together(all)
	most := 0
	for i, n := range atOnce {
		most = max(most, n)
		if b.status == 0 || all[i].status >= 400 {
			b.told(all[i])
		}
	}
	seen := fmt.Sprintf("the shop makes %d at once", most)
	return Shot{Worked: most > hammers/4, Evidence: seen, Seen: seen}
}

func together(all []*browser) []int {
	atOnce := make([]int, len(all))
	var wg sync.WaitGroup
	for i, a := range all {
		wg.Go(func() { atOnce[i] = a.report() })
	}
	wg.Wait()
	return atOnce
}

// waitTurn asks while somebody else asks for many.
func waitTurn(b *browser) Shot {
	greedy := b.another()
	all := make([]*browser, hammers/2)
	for i := range all {
		same := *greedy
		all[i] = &same
	}
	var wg sync.WaitGroup
	wg.Go(func() { together(all) })
	defer wg.Wait()
	time.Sleep(reportTime / 2) // so that they are there
	own := b.another()
	n := own.report()
	b.told(own)
	return Shot{Worked: n > 0, Evidence: "the report comes"}
}
