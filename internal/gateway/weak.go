package gateway

import (
	"net"
	"net/netip"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/upstream"
)

// Weak says in plain words what is configured to protect less than it could.
func (g *Gateway) Weak() []string { return g.weak }

func (b *builder) weak() {
	say := func(place, text string) {
		if place != "" {
			text = place + ": " + text
		}
		b.g.weak = append(b.g.weak, text)
	}
	f := b.file
	weakGuards(say, "", f.Guards)
	b.weakLimits(say, "", f.Guards)
	for _, s := range f.Sites {
		name := strings.Join(s.Host, ", ")
		weakGuards(say, name, s.Guards)
		b.weakLimits(say, name, s.Guards)
		weakUpstream(say, name, s.Upstream)
		if b.g.people != nil && s.Origin == "" && len(s.Host) > 0 && strings.HasPrefix(s.Host[0], "*") {
			say(name, "origin: is not set, so links in letters lead to "+b.g.people.origin(s.Host[0])+", and passkeys are good there only")
		}
		for _, r := range s.Routes {
			weakGuards(say, name+r.Path, r.Guards)
			b.weakLimits(say, name+r.Path, r.Guards)
			weakUpstream(say, name+r.Path, r.Upstream)
		}
	}
	if addr := f.Listen.InsecureHTTP; addr != "" {
		say("", "listen.insecure_http: "+addr+" serves in clear text; only a TLS terminator on this host may reach it")
		if len(f.TrustedProxies) == 0 {
			say("", "listen.insecure_http: without trusted_proxies every client has the terminator's address, and shares its limits")
		}
	}
	if a := f.Listen.Admin; a != "" && !isLoopback(a) {
		say("", "listen.admin: "+a+" can be reached from other machines, and asks nobody who they are")
	}
	if f.Telemetry.Pprof {
		say("", "telemetry.pprof: profiles show what is in memory")
	}
}

func weakGuards(say func(place, text string), place string, c config.Guards) {
	if len(c.Off) > 0 {
		say(place, "off: "+strings.Join(c.Off, ", ")+" protects nothing here")
	}
	if len(c.Monitor) > 0 {
		say(place, "monitor: "+strings.Join(c.Monitor, ", ")+" records what it would refuse, and lets it pass")
	}
	if rc := orZero(c.Require); rc.ByIdentity() && names(c.Off, "identity") && !names(c.Off, "access") {
		say(place, "require: nobody comes in, as off has identity, which would find out who they are")
	}
	if rc := orZero(c.Require); rc.Required() && (names(c.Off, "access") || names(c.Monitor, "access")) {
		say(place, "require: is not enforced here: everybody comes in, as off or monitor has access")
	}
	if c.WAF != nil && c.WAF.Shadow != nil {
		say(place, "waf.shadow: records what it would refuse, and lets it pass; it costs as much again as the waf")
	}
	if c.WAF != nil && c.WAF.Engine == "coraza" {
		say(place, "waf.engine: coraza runs all rules here, at a hundred times the native engine's cost: anybody can buy CPU time with requests")
	}
}

// weakLimits tells of limits by what nobody can prove.
func (b *builder) weakLimits(say func(place, text string), place string, c config.Guards) {
	if b.g.people != nil || c.Limit == nil {
		return
	}
	all := []limit.By{c.Limit.By}
	for _, l := range c.Limit.Limits {
		all = append(all, l.By)
		if len(l.Roles) > 0 {
			say(place, "limit: of role "+strings.Join(l.Roles, ", ")+" holds for nobody, since nobody can sign in without identity")
		}
	}
	for _, by := range all {
		for _, word := range by {
			switch word {
			case "user", "role", "session", "key", "tenant":
				say(place, "limit: by "+word+" counts by client, since nobody can sign in without identity")
			}
		}
	}
}

func weakUpstream(say func(place, text string), place string, c *upstream.Config) {
	if c == nil {
		return
	}
	for _, text := range c.Weak() {
		say(place, "upstream: "+text)
	}
}

// listeners checks the addresses to listen on.
func (b *builder) listeners() {
	l := b.file.Listen
	seen := map[string]string{}
	for _, a := range []struct{ setting, addr string }{
		{"listen.https", l.HTTPS}, {"listen.http", l.HTTP}, {"listen.admin", l.Admin}, {"listen.insecure_http", l.InsecureHTTP},
	} {
		if a.addr == "" {
			continue
		}
		if _, err := net.ResolveTCPAddr("tcp", a.addr); err != nil {
			b.errs = append(b.errs, merlon.BadSetting(a.setting, a.addr, `must be an address such as ":443" or "127.0.0.1:8443", or "off"`))
			continue
		}
		if other := seen[a.addr]; other != "" && !strings.HasSuffix(a.addr, ":0") {
			b.errs = append(b.errs, merlon.BadSetting(a.setting, a.addr, "is the address of "+other+" already"))
		}
		seen[a.addr] = a.setting
	}
	if l.HTTPS == "" && l.InsecureHTTP == "" {
		b.errs = append(b.errs, merlon.BadSetting("listen.https", "off", "must be an address, as nothing else serves the sites"))
	}
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost"
}
