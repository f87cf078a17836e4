package demo

import (
	"html"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A door is a log-in: the shop's own, or the one in front of the shop. Who
// attacks goes to where the back office sends people.

const (
	backOffice = "/admin"
	portal     = "/.merlon/"
)

// guarded reports whether the back office sends people to another log-in than
// the shop's own.
func (b *browser) guarded() bool {
	if b.door == nil {
		visitor := b.another()
		p := visitor.get(backOffice)
		found := p.challenged()
		b.door = &found
		if visitor.err != nil {
			b.failed(visitor.err)
		}
	}
	return *b.door
}

// challenged reports whether the answer sends people to sign in.
func (p page) challenged() bool {
	return p.status == http.StatusSeeOther && strings.HasPrefix(p.header.Get("Location"), portal)
}

// another returns a browser of somebody else, from an address of its own.
func (b *browser) another() *browser {
	n, err := newBrowser(b.ctx, b.client, b.base.String())
	if err != nil { // the address was read before
		b.failed(err)
		return b
	}
	n.people, n.door = b.people, b.door
	n.http.Transport = b.elsewhere()
	return n
}

// manyAddresses reports whether this system has more than one loopback address
// to come from, as Linux does.
var manyAddresses = sync.OnceValue(func() bool {
	c, err := net.ListenPacket("udp", "127.61.61.1:0")
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
})

// elsewhere returns a transport that comes from another address, in another
// network, if there is one; else from the same.
func (b *browser) elsewhere() http.RoundTripper {
	t, ok := b.client.Transport.(*http.Transport)
	addr, err := netip.ParseAddr(b.base.Hostname())
	if !ok || err != nil || !addr.Is4() || !manyAddresses() {
		return b.client.Transport
	}
	n := b.addresses.Add(1)
	own := t.Clone()
	d := &net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 61, byte(n), byte(n>>8)+1)}}
	own.DialContext = d.DialContext
	own.DisableKeepAlives = false
	own.MaxIdleConns = 1
	own.IdleConnTimeout = 5 * time.Second
	return own
}

var (
	postForm   = regexp.MustCompile(`(?s)<form[^>]* method="post" action="([^"]*)"[^>]*>(.*?)</form>`)
	anyForm    = regexp.MustCompile(`(?s)<form method="post" action="([^"]*)"[^>]*>(.*?)</form>`)
	hiddenPart = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
	onward     = regexp.MustCompile(`http-equiv="refresh" content="0; ?url=([^"]*)"`)
)

// hidden returns the hidden fields of the page's form that goes to action.
func (p page) hidden(action string) map[string]string {
	for _, pattern := range []*regexp.Regexp{anyForm, postForm} {
		for _, m := range pattern.FindAllStringSubmatch(p.body, -1) {
			if m[1] != action {
				continue
			}
			fields := map[string]string{}
			for _, f := range hiddenPart.FindAllStringSubmatch(m[2], -1) {
				fields[f[1]] = html.UnescapeString(f[2])
			}
			return fields
		}
	}
	return nil
}

// fill sends the page's form that goes to action.
func (b *browser) fill(p page, action string, fields ...string) page {
	return b.form(action, ownPage, p.with(action, fields...)...)
}

// with returns the hidden fields of a form, and others.
func (p page) with(action string, fields ...string) []string {
	hidden := p.hidden(action)
	var all []string
	for _, k := range slices.Sorted(maps.Keys(hidden)) {
		all = append(all, k, hidden[k])
	}
	return append(all, fields...)
}

// doorForm opens the log-in page, and returns it and where its form goes.
func (b *browser) doorForm(query string) (p page, action string) {
	if b.guarded() {
		return b.get(portal + "login" + query), portal + "login"
	}
	return b.get("/login" + query), "/login"
}

// nameField is what the log-in form calls the user name.
func (b *browser) nameField() string {
	if b.guarded() {
		return "name"
	}
	return "username"
}

// signIn gives a name and a password at the door. Who is told to wait a moment
// does so, as people do.
func (b *browser) signIn(name, password string) page {
	p, action := b.doorForm("")
	for try := 0; ; try++ {
		saved := [...]any{b.status, b.id}
		answer := b.fill(p, action, b.nameField(), name, "password", password)
		wait, err := strconv.Atoi(answer.header.Get("Retry-After"))
		if answer.status != http.StatusTooManyRequests || err != nil || wait > 5 || try == 3 {
			return answer
		}
		b.status, b.id = saved[0].(int), saved[1].(string)
		select {
		case <-time.After(time.Duration(wait) * time.Second):
		case <-b.ctx.Done():
			return answer
		}
	}
}

// enter signs a shopkeeper in with all that the door asks for.
func (b *browser) enter(k *Person) page {
	p := b.signIn(k.Name, k.Password)
	if p.hidden(portal+"code") == nil {
		return p
	}
	code, err := k.code()
	if err != nil {
		return b.failed(err)
	}
	return b.fill(p, portal+"code", "code", code)
}

// leave logs out.
func (b *browser) leave() {
	if b.guarded() {
		b.fill(b.get(portal+"logout"), portal+"logout", "everywhere", "")
		return
	}
	b.form("/logout", ownPage)
}

// accepted reports whether an answer to a name and a password says that they
// are right, be it that more is asked for.
func (p page) accepted() bool {
	return p.status == http.StatusSeeOther && !p.challenged() || p.status == http.StatusOK && (p.leads() != "" || p.hidden(portal+"code") != nil)
}

// leads returns where the page after a log-in leads.
func (p page) leads() string {
	if to := p.header.Get("Location"); to != "" {
		return to
	}
	if m := onward.FindStringSubmatch(p.body); m != nil {
		return html.UnescapeString(m[1])
	}
	return ""
}

// shopkeeper returns somebody who may enter the back office.
func (b *browser) shopkeeper() *Person {
	if !b.guarded() {
		return &Person{Name: firstUsers[0].Username, Password: firstUsers[0].Password}
	}
	k, err := b.people.next()
	if err != nil {
		b.failed(err)
		return &Person{}
	}
	return k
}

// officeOpen looks into the back office.
func (b *browser) officeOpen() Shot {
	return b.get(backOffice).shows("the back office opens, with every customer's address", "ann.fletcher@mail.example")
}

// plant puts one browser's cookies into another.
func (b *browser) plant(into *browser) {
	cookies := b.http.Jar.Cookies(b.base)
	for _, c := range cookies {
		c.Path, c.Secure = "/", b.base.Scheme == "https"
	}
	into.http.Jar.SetCookies(b.base, cookies)
}

// told makes how another browser's requests were answered the shot's.
func (b *browser) told(by *browser) {
	b.status, b.id, b.later = by.status, by.id, by.later
	if by.err != nil {
		b.failed(by.err)
	}
}

// at returns the address that a page's link means, as browsers read it: with
// backslashes as slashes, and without tabs and line ends (WHATWG URL).
func (b *browser) at(link string) *url.URL {
	link = strings.NewReplacer("\\", "/", "\t", "", "\n", "", "\r", "").Replace(strings.TrimSpace(link))
	u, err := url.Parse(link)
	if err != nil {
		return b.base
	}
	if u.Scheme != "" && u.Host == "" && u.Opaque != "" { // https:evil.example
		u.Host, u.Opaque = u.Opaque, ""
	}
	return b.base.ResolveReference(u)
}
