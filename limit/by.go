package limit

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/identity/account"
)

// By is what requests are told apart by, written as one word or a list of
// them: "user", "header X-Tenant".
type By []string

// UnmarshalYAML reads a word or a list.
func (b *By) UnmarshalYAML(decode func(any) error) error {
	var one string
	if err := decode(&one); err == nil {
		*b = By{one}
		return nil
	}
	return decode((*[]string)(b))
}

type kind uint8

const (
	byClient kind = iota
	byNetwork
	byASN
	byCountry
	byJA4
	byUser
	byRole
	bySession
	byKey
	byTenant
	byHeader
	byField
	byRoute
	bySite
)

var kinds = [...]string{"client", "network", "asn", "country", "ja4", "user", "role", "session", "key", "tenant", "header", "field", "route", "site"}

const (
	byForm = "must be of client, network, asn, country, ja4, user, role, session, key, tenant, header NAME, field NAME, route, site"
	// maxLooked is how much of a value that a client spells is looked at.
	maxLooked = 1 << 10
)

// A dimension is one thing that requests are told apart by.
type dimension struct {
	kind kind
	name string // of a header or field
}

func (d dimension) String() string {
	if d.name == "" {
		return kinds[d.kind]
	}
	return kinds[d.kind] + " " + d.name
}

// known reports whether it is known only behind identity.
func (d dimension) known() bool { return d.kind >= byUser && d.kind <= byTenant }

// dimensions reads b, and tells each mistake by bad.
func (b By) dimensions(geo Geo, bad func(value, rule string)) []dimension {
	if len(b) == 0 {
		return []dimension{{kind: byClient}, {kind: byRoute}}
	}
	var list []dimension
	for _, word := range b {
		d, rule := dimensionOf(word)
		has := func(other dimension) bool { return other == d || d.kind == byField && other.kind == byField }
		switch {
		case rule != "":
		case (d.kind == byASN || d.kind == byCountry) && geo == nil:
			rule = "needs a database of addresses: set geo at the top of the file"
		case slices.Contains(list, d):
			rule = "is there twice"
		case slices.ContainsFunc(list, has):
			rule = "must be the only field"
		default:
			list = append(list, d)
			continue
		}
		bad(word, rule)
	}
	return list
}

func dimensionOf(word string) (d dimension, rule string) {
	first, name, named := strings.Cut(word, " ")
	i := slices.Index(kinds[:], first)
	if i < 0 {
		return d, byForm
	}
	d.kind, d.name = kind(i), strings.TrimSpace(name)
	switch {
	case d.kind != byHeader && d.kind != byField:
		if named {
			return d, byForm
		}
	case len(d.name) == 0 || len(d.name) > 64 || strings.ContainsFunc(d.name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		return d, "must name one, in up to 64 characters, such as \"header X-Tenant\" or \"field email\""
	case d.kind == byHeader:
		if !isToken(d.name) {
			return d, "must name a header field, such as \"header X-Tenant\""
		}
		d.name = textproto.CanonicalMIMEHeaderKey(d.name)
		if d.name == "Host" {
			return d, "must not be Host: every site has counts of its own"
		}
	}
	return d, ""
}

// isToken is RFC 9110, section 5.6.2.
func isToken(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// A caller is what is known of who sends a request.
type caller struct {
	r      *merlon.Request
	client netip.Addr
	geo    Geo
	unread bool // its body must not be looked at
}

// part appends to k whose request it is, as far as d tells; value is that of a
// field. Who has nothing of the kind is told apart by client.
func (d dimension) part(k count.Key, c *caller, value string) count.Key {
	k = append(k, byte(d.kind))
	switch d.kind {
	case byClient:
		return withAddr(k, c.client)
	case byNetwork:
		return withAddr(k, networkOf(c.client).Addr())
	case byASN:
		if n := c.geo.ASN(c.client); n != 0 {
			return binary.AppendUvarint(k, uint64(n))
		}
	case byCountry:
		if name := c.geo.Country(c.client); name != "" {
			return k.With(name)
		}
	case byJA4:
		if c.r.JA4 != "" {
			return k.With(c.r.JA4)
		}
	case byHeader:
		if lines := c.r.Header[d.name]; len(lines) > 0 {
			return withLines(k, lines)
		}
	case byField:
		if value != "" {
			return withHash(k, value)
		}
	case byRoute:
		return k.With(c.r.Route)
	case bySite:
		return k
	case byRole:
		if id := c.r.Identity; id != nil && len(id.Roles) > 0 {
			for _, role := range slices.Compact(slices.Sorted(slices.Values(id.Roles))) {
				k = k.With(role)
			}
			return append(k, 0) // no role is empty, so here the list ends
		}
	default:
		if who := d.who(c.r.Identity); who != "" {
			return k.With(who)
		}
	}
	return withAddr(append(k[:len(k)-1], byte(byClient)), c.client)
}

// who is what a proved identity says for d, or empty.
func (d dimension) who(id *merlon.Identity) string {
	switch {
	case id == nil:
	case d.kind == byUser:
		return id.Subject
	case d.kind == byTenant:
		return id.Tenant
	case d.kind == byRole:
		return strings.Join(slices.Compact(slices.Sorted(slices.Values(id.Roles))), "+")
	case d.kind == bySession, d.kind == byKey && slices.Contains(id.Methods, account.ByKey):
		return id.Session
	}
	return ""
}

// seen says for the operator who it is, without what is secret.
func (d dimension) seen(c *caller) string {
	none := fmt.Sprintf("client %s, without %s", c.client, d)
	switch d.kind {
	case byClient:
		return "client " + c.client.String()
	case byNetwork:
		return "network " + networkOf(c.client).String()
	case byASN:
		if n := c.geo.ASN(c.client); n != 0 {
			return fmt.Sprintf("asn %d", n)
		}
	case byCountry:
		if name := c.geo.Country(c.client); name != "" {
			return "country " + name
		}
	case byJA4:
		if c.r.JA4 != "" {
			return "ja4 " + c.r.JA4
		}
	case byRoute:
		return "route " + c.r.Route
	case bySite:
		return "site " + c.r.Site
	case byHeader:
		if len(c.r.Header[d.name]) > 0 {
			return d.String()
		}
	case byField:
		return d.String()
	case bySession, byKey:
		if d.who(c.r.Identity) != "" {
			return d.String()
		}
	default:
		if who := d.who(c.r.Identity); who != "" {
			return d.String() + " " + who
		}
	}
	return none
}

// networkOf is the /24 or /48 around a client: what is commonly given to one
// customer of an access provider or a small hoster.
func networkOf(client netip.Addr) netip.Prefix {
	bits := 48
	if client.Is4() {
		bits = 24
	}
	p, err := client.Prefix(bits)
	if err != nil { // no address at all
		return netip.Prefix{}
	}
	return p
}

func withAddr(k count.Key, a netip.Addr) count.Key {
	switch {
	case a.Is4():
		b := a.As4()
		return append(append(k, 4), b[:]...)
	case a.Is6():
		b := a.As16()
		return append(append(k, 16), b[:]...)
	}
	return append(k, 0)
}

// withHash appends what stands for a value of any length. It has to be the
// same in every process, so it has no seed.
func withHash(k count.Key, value string) count.Key {
	sum := sha256.Sum256([]byte(value[:min(len(value), maxLooked)]))
	return append(append(k, 16), sum[:16]...)
}

func withLines(k count.Key, lines []string) count.Key {
	if len(lines) == 1 {
		return withHash(k, strings.TrimSpace(lines[0]))
	}
	var all count.Key
	for _, line := range lines {
		if all = all.With(strings.TrimSpace(line)); len(all) > maxLooked {
			break
		}
	}
	return withHash(k, string(all))
}

// folded returns the one form of what is typed into a field: as a log-in name
// is, or as nearly so as what can be none allows.
func folded(value string) string {
	value = value[:min(len(value), maxLooked)]
	if s, err := account.Fold(value); err == nil {
		return s
	}
	return strings.Join(strings.Fields(strings.ToLower(norm.NFKC.String(value))), " ")
}
