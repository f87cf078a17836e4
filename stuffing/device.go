package stuffing

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

// Cookie is the name of the one by which a browser is known.
const Cookie = "__Host-merlon-known"

const (
	deviceVersion = 1
	maxUsers      = 5 // users whom one browser is known by
	maxCookies    = 4 // cookies of that name that are looked at
	deviceLasts   = 365 * 24 * time.Hour
	idSize        = 16
	tagSize       = 12
	markSize      = 2 + tagSize
	sealSize      = 16
)

// devices makes and reads the cookie. It is the version, a random id of the
// browser, what it is known by, and a seal over these, the site and the host. What it is
// known by is the day of the last log-in and a keyed hash of user and id, so
// that two browsers of one user have nothing in common.
type devices struct {
	tags, seals []byte // keys
	now         func() time.Time
}

// hostOf returns the host that r is for, without its port.
func hostOf(r *merlon.Request) string {
	host := strings.ToLower(r.Host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.TrimSuffix(host, ".")
}

// placeOf is where a browser is known: at one host of a site, since the cookie
// goes to no other, and each may have users of its own.
func placeOf(r *merlon.Request) string { return r.Site + "\x00" + hostOf(r) }

func newDevices(k secrets.Key, now func() time.Time) *devices {
	return &devices{k.Derive("merlon stuffing device user"), k.Derive("merlon stuffing device"), now}
}

// A device is a browser that has logged in before.
type device struct {
	id    [idSize]byte
	marks []mark // the last one first
}

type mark struct {
	day uint16 // since 1970
	tag [tagSize]byte
}

func keyed(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write(p)
	}
	return h.Sum(nil)
}

func (d *devices) tag(site, user string, id [idSize]byte) (t [tagSize]byte) {
	copy(t[:], keyed(d.tags, []byte(site), []byte(user), id[:]))
	return t
}

func (d *devices) seal(site string, text []byte) []byte {
	return keyed(d.seals, []byte(site), text)[:sealSize]
}

func (d *devices) today() uint16 { return uint16(d.now().Unix() / 86400) }

// read returns the browsers that a request says it is; more than one only if
// somebody has put a cookie beside ours.
func (d *devices) read(r *merlon.Request) []device {
	var found []device
	if len(r.Header["Cookie"]) == 0 {
		return nil
	}
	for i, c := range r.CookiesNamed(Cookie) {
		if i == maxCookies {
			break
		}
		if dev, ok := d.parse(placeOf(r), c.Value); ok {
			found = append(found, dev)
		}
	}
	return found
}

func (d *devices) parse(site, value string) (device, bool) {
	var dev device
	if len(value) > 256 {
		return dev, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(value)
	n := len(b) - 1 - idSize - sealSize
	if err != nil || n < 0 || n%markSize != 0 || n/markSize > maxUsers || b[0] != deviceVersion {
		return dev, false
	}
	text, seal := b[:len(b)-sealSize], b[len(b)-sealSize:]
	if !hmac.Equal(seal, d.seal(site, text)) {
		return dev, false
	}
	copy(dev.id[:], text[1:])
	today := d.today()
	for rest := text[1+idSize:]; len(rest) > 0; rest = rest[markSize:] {
		m := mark{day: binary.BigEndian.Uint16(rest)}
		copy(m.tag[:], rest[2:])
		if m.day <= today+1 && today <= m.day+uint16(deviceLasts/(24*time.Hour)) {
			dev.marks = append(dev.marks, m)
		}
	}
	return dev, len(dev.marks) > 0
}

// known returns the id of the browser that is the user's, or nil.
func (d *devices) known(found []device, site, user string) []byte {
	for i := range found {
		want := d.tag(site, user, found[i].id)
		for _, m := range found[i].marks {
			if hmac.Equal(m.tag[:], want[:]) {
				return found[i].id[:]
			}
		}
	}
	return nil
}

// remember returns the cookie of a browser in which a user has logged in.
func (d *devices) remember(found []device, site, user string) string {
	var dev device
	if len(found) > 0 {
		dev = found[0]
		if id := d.known(found, site, user); id != nil {
			dev = found[slices.IndexFunc(found, func(f device) bool { return string(f.id[:]) == string(id) })]
		}
	} else {
		_, _ = rand.Read(dev.id[:]) // never fails
	}
	m := mark{d.today(), d.tag(site, user, dev.id)}
	marks := []mark{m}
	for _, old := range dev.marks {
		if old.tag != m.tag && len(marks) < maxUsers {
			marks = append(marks, old)
		}
	}
	text := append([]byte{deviceVersion}, dev.id[:]...)
	for _, m := range marks {
		text = append(binary.BigEndian.AppendUint16(text, m.day), m.tag[:]...)
	}
	c := http.Cookie{
		Name: Cookie, Value: base64.RawURLEncoding.EncodeToString(append(text, d.seal(site, text)...)),
		Path: "/", MaxAge: int(deviceLasts / time.Second), HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode,
	}
	return c.String()
}

// KnownDevice reports whether a request comes from a browser that has logged in
// before. A log-in must be of the same user, or an account of one's own would
// be a way in.
func (g *Guard) KnownDevice(r *merlon.Request) bool {
	found := g.devices.read(r)
	if len(found) == 0 {
		return false
	}
	if !g.isLogin(r) {
		return true
	}
	tries, d := g.read(r)
	if d != nil || len(tries) > 1 {
		return false
	}
	for _, t := range tries {
		if t.user == "" || g.devices.known(found, placeOf(r), t.user) == nil {
			return false
		}
	}
	return true
}

// Device names the browser that a request says it is, if it has logged in
// before; empty otherwise. It reads no body.
func (g *Guard) Device(r *merlon.Request) string {
	found := g.devices.read(r)
	if len(found) == 0 {
		return ""
	}
	return hex.EncodeToString(found[0].id[:])
}
