package upstream

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/merlon-dev/merlon"
)

// A form is how a Config was written.
type form uint8

const (
	mapping form = iota
	list
	single
)

// UnmarshalYAML reads an address, a list of addresses, or the mapping.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	var one string
	if unmarshal(&one) == nil {
		*c = Config{To: []string{one}, form: single}
		return nil
	}
	var many []string
	if unmarshal(&many) == nil {
		*c = Config{To: many, form: list}
		return nil
	}
	type plain Config // without this method
	return unmarshal((*plain)(c))
}

// at is the place of To[i] in what was written.
func (c *Config) at(i int) string {
	switch c.form {
	case single:
		return ""
	case list:
		return "[" + strconv.Itoa(i) + "]"
	default:
		return "to[" + strconv.Itoa(i) + "]"
	}
}

// Weak says in plain words what about c is insecure though it was asked for.
func (c Config) Weak() []string {
	var weak []string
	if c.InsecureCleartext {
		for _, to := range c.To {
			if a, err := parseAddress(to); err == nil && a.exposed() {
				weak = append(weak, "insecure_cleartext: "+to+" is asked without encryption over the network")
			}
		}
	}
	if c.TLS.MinVersion == "1.2" {
		weak = append(weak, "tls.min_version: backends may use TLS 1.2")
	}
	return weak
}

// An address is where one backend is.
type address struct {
	text   string
	scheme string // of the URL that is asked: http or https
	host   string // host:port or host; what a Unix socket's backend is called
	socket string // path of a Unix socket
	h2c    bool
}

// parseAddress reads one of To.
func parseAddress(s string) (address, error) {
	a := address{text: s, scheme: "http", host: "localhost"}
	if path, ok := strings.CutPrefix(s, "h2c+unix:"); ok {
		a.socket, a.h2c = path, true
	} else if path, ok := strings.CutPrefix(s, "unix:"); ok {
		a.socket = path
	}
	if a.socket != "" {
		if !strings.HasPrefix(a.socket, "/") || strings.HasPrefix(a.socket, "//") || len(a.socket) > 107 {
			return a, errors.New("must name a socket by an absolute path of at most 107 bytes")
		}
		return a, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return a, errors.New("must have one of the forms https://host:port, http://host:port, unix:/path, h2c://host:port")
	}
	switch u.Scheme {
	case "http", "https":
		a.scheme = u.Scheme
	case "h2c":
		a.h2c = true
	default:
		return a, errors.New("must be https, http, unix, h2c or h2c+unix")
	}
	if u.User != nil {
		a.text = u.Redacted()
		return a, errors.New("must hold no user name or password")
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return a, errors.New("must end after the port; add_prefix puts a path before every path")
	}
	a.host = u.Host
	return a, a.checkHost(u.Hostname(), u.Port())
}

func (a *address) checkHost(name, port string) error {
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("must have a port from 1 to 65535")
		}
	}
	if name == "" || strings.HasSuffix(a.host, ":") || !httpguts.ValidHostHeader(a.host) {
		return errors.New("must name a host")
	}
	return nil
}

// exposed reports whether a is asked in cleartext over a network.
func (a *address) exposed() bool {
	return a.scheme == "http" && a.socket == "" && !a.loopback()
}

// loopback reports whether a never leaves the machine. Names other than
// localhost may point anywhere, also later.
func (a *address) loopback() bool {
	u := url.URL{Host: a.host}
	name := u.Hostname()
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

const (
	maxBackends = 128
	maxPins     = 16
)

// check returns c with its defaults, and every mistake in it.
func (c Config) check() (Config, []address, error) {
	addresses, errs := c.addresses()
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }

	if c.Host != "" && c.Host != "upstream" && !httpguts.ValidHostHeader(c.Host) {
		bad("host", c.Host, `must be "upstream" or a host name`)
	}
	for _, p := range []struct{ setting, value string }{{"strip_prefix", c.StripPrefix}, {"add_prefix", c.AddPrefix}} {
		if p.value != "" && !validPrefix(p.value) {
			bad(p.setting, p.value, `must begin and not end with "/", without "." segments, "%", "?" or spaces`)
		}
	}
	whole(&errs, "max_in_flight", &c.MaxInFlight, 10000, 1, 1000000)
	if c.MaxResponseHeader == 0 {
		c.MaxResponseHeader = 64 * merlon.KiB
	}
	if c.MaxResponseHeader < merlon.KiB || c.MaxResponseHeader > merlon.MiB {
		bad("max_response_header", c.MaxResponseHeader.String(), "must be from 1KiB to 1MiB")
	}
	for _, d := range []struct {
		setting string
		value   *time.Duration
		unset   time.Duration
	}{
		{"timeouts.dial", &c.Timeouts.Dial, 5 * time.Second},
		{"timeouts.response_header", &c.Timeouts.ResponseHeader, time.Minute},
		{"timeouts.stall", &c.Timeouts.Stall, time.Minute},
		{"timeouts.stream", &c.Timeouts.Stream, time.Hour},
		{"timeouts.idle", &c.Timeouts.Idle, 4 * time.Second},
	} {
		span(&errs, d.setting, d.value, d.unset, time.Millisecond, 24*time.Hour)
	}
	if c.Health != nil {
		h := *c.Health
		h.check(&errs)
		c.Health = &h
	}
	if c.Sticky != nil {
		s := *c.Sticky
		if s.Cookie == "" {
			s.Cookie = "__Host-merlon-backend"
		}
		if !validCookieName(s.Cookie) {
			bad("sticky.cookie", s.Cookie, `must be a cookie name that begins with "__Host-"`)
		}
		c.Sticky = &s
	}
	return c, addresses, errors.Join(append(errs, c.checkTLS(addresses)...)...)
}

func (c Config) addresses() ([]address, []error) {
	var errs []error
	if len(c.To) == 0 || len(c.To) > maxBackends {
		errs = append(errs, merlon.BadSetting("to", "", fmt.Sprintf("must name 1 to %d backends", maxBackends)))
		return nil, errs
	}
	var all []address
	seen := map[string]bool{}
	for i, to := range c.To {
		a, err := parseAddress(to)
		switch {
		case err != nil:
			errs = append(errs, merlon.BadSetting(c.at(i), a.text, err.Error()))
			continue
		case seen[to]:
			errs = append(errs, merlon.BadSetting(c.at(i), to, "must be named only once"))
		case a.exposed() && !c.InsecureCleartext:
			errs = append(errs, merlon.BadSetting(c.at(i), to,
				"must be https:// or unix:, because cleartext may not leave this machine (insecure_cleartext: true allows it)"))
		}
		seen[to] = true
		all = append(all, a)
	}
	return all, errs
}

func (c Config) checkTLS(addresses []address) []error {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	t := c.TLS
	used := false
	for _, a := range addresses {
		used = used || a.scheme == "https"
	}
	if !used && (t.CA != "" || t.ServerName != "" || t.Cert != "" || t.Key != "" || len(t.Pins) > 0 || t.MinVersion != "") {
		bad("tls", "", "must be left out, as no backend is https://")
	}
	if (t.Cert == "") != (t.Key == "") {
		bad("tls.cert", t.Cert, "must be given together with tls.key")
	}
	if t.MinVersion != "" && t.MinVersion != "1.3" && t.MinVersion != "1.2" {
		bad("tls.min_version", t.MinVersion, "must be 1.3 or 1.2")
	}
	if t.ServerName != "" && (!httpguts.ValidHostHeader(t.ServerName) || strings.ContainsAny(t.ServerName, ":/")) {
		bad("tls.server_name", t.ServerName, "must be a host name without port")
	}
	if len(t.Pins) > maxPins {
		bad("tls.pins", "", fmt.Sprintf("must be at most %d", maxPins))
	}
	for i, pin := range t.Pins {
		if _, err := parsePin(pin); err != nil {
			bad(fmt.Sprintf("tls.pins[%d]", i), pin, err.Error())
		}
	}
	return errs
}

func parsePin(s string) (pin [sha256.Size]byte, err error) {
	text, ok := strings.CutPrefix(s, "sha256/")
	b, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(b) != len(pin) {
		return pin, errors.New(`must be "sha256/" and the base64 of 32 bytes`)
	}
	copy(pin[:], b)
	return pin, nil
}

func (h *Health) check(errs *[]error) {
	if h.Path != "" {
		u, err := url.ParseRequestURI(h.Path)
		if err != nil || !strings.HasPrefix(h.Path, "/") || u.Host != "" {
			*errs = append(*errs, merlon.BadSetting("health.path", h.Path, `must be a path that begins with "/"`))
		}
	} else if h.Host != "" || len(h.Status) > 0 {
		*errs = append(*errs, merlon.BadSetting("health.path", "", "must be given with health.host and health.status"))
	}
	if h.Host != "" && !httpguts.ValidHostHeader(h.Host) {
		*errs = append(*errs, merlon.BadSetting("health.host", h.Host, "must be a host name"))
	}
	for i, s := range h.Status {
		if s < 200 || s > 599 {
			*errs = append(*errs, merlon.BadSetting(fmt.Sprintf("health.status[%d]", i), strconv.Itoa(s), "must be from 200 to 599"))
		}
	}
	span(errs, "health.interval", &h.Interval, 5*time.Second, 100*time.Millisecond, time.Hour)
	span(errs, "health.timeout", &h.Timeout, 2*time.Second, 10*time.Millisecond, time.Minute)
	whole(errs, "health.unhealthy_after", &h.UnhealthyAfter, 2, 1, 100)
	whole(errs, "health.healthy_after", &h.HealthyAfter, 1, 1, 100)
}

func span(errs *[]error, setting string, d *time.Duration, unset, low, high time.Duration) {
	if *d == 0 {
		*d = unset
	}
	if *d < low || *d > high {
		*errs = append(*errs, merlon.BadSetting(setting, d.String(), fmt.Sprintf("must be from %v to %v", low, high)))
	}
}

func whole(errs *[]error, setting string, n *int, unset, low, high int) {
	if *n == 0 {
		*n = unset
	}
	if *n < low || *n > high {
		*errs = append(*errs, merlon.BadSetting(setting, strconv.Itoa(*n), fmt.Sprintf("must be from %d to %d", low, high)))
	}
}

// validPrefix keeps prefixes to what every server reads alike.
func validPrefix(p string) bool {
	if p[0] != '/' || strings.HasSuffix(p, "/") {
		return false
	}
	for seg := range strings.SplitSeq(p[1:], "/") {
		if seg == "" || seg == "." || seg == ".." {
			return false
		}
	}
	for i := range len(p) {
		if !pathByte(p[i]) || p[i] == '%' {
			return false
		}
	}
	return true
}

// validCookieName asks for a prefix that makes browsers refuse the cookie
// from anybody but this host over TLS (RFC 6265bis, section 4.1.3).
func validCookieName(name string) bool {
	rest, ok := strings.CutPrefix(name, "__Host-")
	if !ok {
		rest, ok = strings.CutPrefix(name, "__Http-Host-")
	}
	return ok && rest != "" && len(name) <= 128 && httpguts.ValidHeaderFieldName(name)
}
