// Package config reads the file: a struct made of the packages' own Config
// types, decoded strictly, so that one run names every mistake with its place.
//
// It decides nothing about what a setting means: whether a value can be used
// is for the constructor of the package that owns it.
package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/token"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/access"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/certs"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/csrf"
	"github.com/merlon-dev/merlon/decoy"
	"github.com/merlon-dev/merlon/headers"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/origin"
	"github.com/merlon-dev/merlon/record"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/stuffing"
	"github.com/merlon-dev/merlon/throttle"
	"github.com/merlon-dev/merlon/upstream"
	"github.com/merlon-dev/merlon/waf"
)

// A File is merlon.yaml.
type File struct {
	// Listen says where Merlon answers.
	Listen Listen `yaml:"listen,omitempty"`
	// Data is the folder for keys, certificates and the event log.
	// Default: the user's data folder, such as ~/.local/share/merlon.
	// Example: /var/lib/merlon
	Data string `yaml:"data,omitempty"`
	// Key is a secret of at least 32 random bytes, from which all others are
	// derived: for second factors and signing keys at rest, and for what browsers
	// carry, such as passes and known devices. Replicas must have the same. Who
	// loses it loses the second factors. Default: made at the first start, merlon.key in the
	// data folder. Example:
	//
	//	key: file:/etc/merlon/merlon.key
	Key secrets.Ref `yaml:"key,omitempty"`
	// InspectMemory bounds how much all requests together hold of bodies that
	// guards want to see; what comes when it is taken is answered 503. From
	// 16MiB to 1024GiB. Default: 256MiB. Example: 1GiB
	InspectMemory merlon.Size `yaml:"inspect_memory,omitempty"`
	// TLS says which certificates are served and which protocol versions.
	TLS certs.Config `yaml:"tls,omitempty"`
	// EdgeConfig names the proxies in front of Merlon and bounds what a client
	// may do before and around a request.
	origin.EdgeConfig `yaml:",inline"`
	// Ledger configures the event log.
	Ledger ledger.Config `yaml:"ledger,omitempty"`
	// Record keeps traffic for `merlon replay`.
	Record record.Config `yaml:"record,omitempty"`
	// Telemetry configures metrics, traces and profiling.
	Telemetry Telemetry `yaml:"telemetry,omitempty"`
	// Identity says who can sign in and how, on all sites. Written without
	// anything below it, and where any route requires somebody to be signed
	// in, all of its defaults hold.
	Identity *Identity `yaml:"identity,omitempty"`
	// Store is where the URL of a PostgreSQL database is kept, which several
	// replicas can share. Default: SQLite, identity.db in the data folder.
	// Example: env:MERLON_STORE
	Store secrets.Ref `yaml:"store,omitempty"`
	// Redis is where the URL of a Redis or Valkey server, its Sentinels or its
	// cluster is kept, in which replicas share counters, bans and sessions:
	// rediss:// with TLS; unix:// and redis:// on this machine. Default: every
	// process counts for itself, and sessions are where accounts are.
	// Example: env:MERLON_REDIS
	Redis secrets.Ref `yaml:"redis,omitempty"`
	// Geo are databases in MaxMind's format (.mmdb) that say in which country
	// and network an address is registered, for limits by country or asn. Of
	// what two know, the first counts. Default: none. Example:
	//
	//	geo: [/var/lib/merlon/country.mmdb, /var/lib/merlon/asn.mmdb]
	Geo []string `yaml:"geo,omitempty"`
	// Class names classes of expensive work, of which only so much is done at
	// once; routes say by throttle.class that they belong to one. Example:
	//
	//	class: {db-report: {at_once: 4, queue: 20, wait: 5s}}
	Class map[string]throttle.ClassConfig `yaml:"class,omitempty"`
	// Lease lets a replica take so many requests at once from Redis for a client,
	// user or key that asks often, and count them by itself for 200 ms at most.
	// That makes busy limits cheaper; others may find as many fewer for each
	// replica meanwhile, nobody more. Only limits with a burst of 8 times as
	// many are leased. From 2 to 1000. Default: each request is counted in Redis.
	// Example: 20
	Lease int `yaml:"lease,omitempty"`
	// Guards hold for every site that does not say otherwise.
	Guards `yaml:",inline"`
	// Sites are the hosts that Merlon answers for; anything else is 421.
	Sites []Site `yaml:"sites,omitempty"`

	name   string
	places map[string]*token.Token
}

// Listen says where Merlon answers. An address is "host:port"; "off" closes a
// listener.
type Listen struct {
	// HTTPS is where sites are served.
	// Default: 127.0.0.1:8443. Example: ":443"
	HTTPS string `yaml:"https,omitempty"`
	// HTTP only redirects to HTTPS and answers ACME challenges.
	// Default: 127.0.0.1:8080. Example: ":80"
	HTTP string `yaml:"http,omitempty"`
	// Admin is where health, readiness and metrics are. On loopback it is plain
	// HTTP; anywhere else it is TLS with the certificates of `tls`.
	// Default: 127.0.0.1:9443.
	Admin string `yaml:"admin,omitempty"`
	// InsecureHTTP serves the sites in clear text, for use behind a TLS
	// terminator on the same host. Name that terminator in
	// trusted_proxies. Default: off. Example: 127.0.0.1:8000
	InsecureHTTP string `yaml:"insecure_http,omitempty"`
}

// Telemetry configures what operators watch.
type Telemetry struct {
	// Traces is an OTLP/HTTP endpoint that request traces are sent to.
	// Default: none. Example: http://127.0.0.1:4318
	Traces string `yaml:"traces,omitempty"`
	// Pprof serves Go's profiles on the admin listener, under /debug/pprof/.
	// They show memory contents: leave off where the admin listener can be
	// reached by others. Default: false.
	Pprof bool `yaml:"pprof,omitempty"`
}

// Guards are the settings of the guards. They may stand at the top, on a site
// and on a route; what is set nearest to the request holds, setting by setting.
type Guards struct {
	// Monitor names guards that record what they would refuse, and let it
	// pass; "all" for every one. Example: [waf]
	Monitor []string `yaml:"monitor,omitempty"`
	// Off names guards that are not asked at all; "all" for every one that
	// can be switched off. Example: [csrf]
	Off []string `yaml:"off,omitempty"`
	// Address says which client addresses may come in.
	Address *origin.Config `yaml:"address,omitempty"`
	// Decoy refuses paths that nobody has a reason to ask for.
	Decoy *decoy.Config `yaml:"decoy,omitempty"`
	// Ban shuts out for a while who goes on attacking.
	Ban *ban.Config `yaml:"ban,omitempty"`
	// Limit bounds how much a client, a user, a key or whatever else requests
	// are told apart by may ask for.
	Limit *limit.Config `yaml:"limit,omitempty"`
	// Challenge has browsers do a little work while the site is flooded, or
	// always.
	Challenge *challenge.Config `yaml:"challenge,omitempty"`
	// WAF looks for attacks with the OWASP Core Rule Set.
	WAF *waf.Config `yaml:"waf,omitempty"`
	// BackendLogin protects a log-in that the backend owns from guessers.
	BackendLogin *stuffing.Config `yaml:"backend_login,omitempty"`
	// CSRF refuses state-changing requests that other sites' pages send.
	CSRF *csrf.Config `yaml:"csrf,omitempty"`
	// Require says who may come in. It needs people who can sign in, and so turns
	// their accounts on: see identity. Default: everybody. Example:
	//
	//	require: {role: member}
	Require *access.Config `yaml:"require,omitempty"`
	// Throttle bounds expensive work, and how fast bodies go.
	Throttle *throttle.Config `yaml:"throttle,omitempty"`
	// Headers says what browsers are told with each answer.
	Headers *headers.Config `yaml:"headers,omitempty"`

	written map[string]bool // what was set, be it to the zero value: "limit.hide_headers"
}

// A Site is what is served for one or more hosts.
type Site struct {
	// Host is the name, or names, that the site answers to; "*" for any.
	// Example: shop.example.com
	Host Names `yaml:"host,omitempty"`
	// Origin is the address that people reach the site by, for links in letters
	// and for passkeys, where it is not https with the first host and the port
	// that Merlon listens on: behind a load balancer, say. Example:
	// https://shop.example.com
	Origin string `yaml:"origin,omitempty"`
	// Upstream is the backend, or backends.
	// Example: http://127.0.0.1:3000
	Upstream *upstream.Config `yaml:"upstream,omitempty"`
	// Guards of this site.
	Guards `yaml:",inline"`
	// Routes are parts of the site with settings of their own.
	Routes []Route `yaml:"routes,omitempty"`
}

// A Route is the part of a site whose path matches a pattern. Of several that
// match, the one with the longest literal beginning is taken.
type Route struct {
	// Path is a pattern: "*" is any run of characters within a segment, "/**"
	// at the end is everything below. Example: /api/**
	Path string `yaml:"path,omitempty"`
	// Upstream is the backend of this route, if it is not the site's.
	Upstream *upstream.Config `yaml:"upstream,omitempty"`
	// Guards of this route.
	Guards `yaml:",inline"`
}

// Names is one host name or a list of them.
type Names []string

// UnmarshalYAML reads a name or a list of names.
func (n *Names) UnmarshalYAML(decode func(any) error) error {
	var one string
	if err := decode(&one); err == nil {
		*n = Names{one}
		return nil
	}
	return decode((*[]string)(n))
}

// maxFile is the largest configuration that is read: 4 MiB.
const maxFile = 4 << 20

// Load reads the file at path. The error holds [Problems] if the file could be
// read but not understood; unless it is not even YAML, the File is returned
// all the same, so that what was understood can be checked, too.
func Load(path string) (*File, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: is larger than %d MiB", path, maxFile>>20)
	}
	return Parse(path, text)
}

// Parse is [Load] for text; name stands in errors.
func Parse(name string, text []byte) (*File, error) {
	f := &File{name: name}
	d := &decoder{nodes: map[string]*token.Token{}}
	if body := d.parse(text); body != nil {
		d.value("", body, reflect.ValueOf(f).Elem())
	}
	f.places = d.nodes
	f.note(d.written)
	if len(d.problems) == 0 {
		return f, nil
	}
	for i := range d.problems {
		d.problems[i].File = name
	}
	if d.broken {
		f = nil
	}
	return f, d.problems.tidy()
}

// Name is the file's name, as given to [Load]; empty for a File made in memory.
func (f *File) Name() string { return f.name }

// Defaults fills in what the file leaves out and is not a guard's own matter.
func (f *File) Defaults() error {
	set := func(s *string, value string) {
		switch *s {
		case "":
			*s = value
		case "off":
			*s = ""
		}
	}
	set(&f.Listen.HTTPS, "127.0.0.1:8443")
	set(&f.Listen.HTTP, "127.0.0.1:8080")
	set(&f.Listen.Admin, "127.0.0.1:9443")
	set(&f.Listen.InsecureHTTP, "")
	if f.Data == "" {
		dir, err := DefaultData()
		if err != nil {
			return merlon.BadSetting("data", "", err.Error())
		}
		f.Data = dir
	}
	return nil
}

// DefaultData is the user's data folder for Merlon (XDG Base Directory
// Specification).
func DefaultData() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "merlon"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("must be set, as there is no home folder to put it in")
	}
	return filepath.Join(home, ".local", "share", "merlon"), nil
}

// Under returns g with every setting that it leaves out taken from outer:
// a route's guards under its site's, a site's under the file's. Lists that
// only grow, such as the WAF's exclusions, are joined.
func (g Guards) Under(outer Guards) Guards {
	inherit("", g.written, reflect.ValueOf(&g).Elem(), reflect.ValueOf(&outer).Elem())
	both := maps.Clone(outer.written)
	if both == nil {
		both = map[string]bool{}
	}
	maps.Copy(both, g.written)
	g.written = both
	return g
}

// Shadow returns the configuration of the WAF's shadow, or nil if there is
// none: that of the WAF itself, with what the shadow sets put in its place. It
// judges no answers and is not verified.
func (g Guards) Shadow() *waf.Config {
	if g.WAF == nil || g.WAF.Shadow == nil {
		return nil
	}
	c := *g.WAF.Shadow
	own := c.Shadow
	inherit("waf.shadow", g.written, reflect.ValueOf(&c).Elem(), reflect.ValueOf(g.WAF).Elem())
	c.Shadow, c.IgnoreResponses, c.Verify = own, true, 0
	return &c
}

// note tells all guards in the file which of their settings were written.
func (f *File) note(written []string) {
	below := func(prefix string) map[string]bool {
		set := map[string]bool{}
		for _, path := range written {
			if rest, ok := strings.CutPrefix(path, prefix); ok {
				set[rest] = true
			}
		}
		return set
	}
	f.Guards.written = below("")
	for i := range f.Sites {
		s, place := &f.Sites[i], fmt.Sprintf("sites[%d].", i)
		s.Guards.written = below(place)
		for j := range s.Routes {
			s.Routes[j].Guards.written = below(fmt.Sprintf("%sroutes[%d].", place, j))
		}
	}
}

func inherit(path string, written map[string]bool, v, outer reflect.Value) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		a, b := v.Field(i), outer.Field(i)
		name, _ := tag(field)
		at := join(path, name)
		under := a.MethodByName("Under")
		switch {
		case a.Kind() == reflect.Pointer && under.IsValid() && !a.IsNil() && !b.IsNil():
			both := reflect.New(a.Type().Elem())
			both.Elem().Set(under.Call([]reflect.Value{b.Elem()})[0])
			a.Set(both)
		case a.Kind() == reflect.Pointer && a.Type().Elem().Kind() == reflect.Struct && !a.IsNil() && !b.IsNil():
			merged := reflect.New(a.Type().Elem())
			merged.Elem().Set(a.Elem())
			inherit(at, written, merged.Elem(), b.Elem())
			a.Set(merged)
		case a.Kind() == reflect.Struct && a.NumField() > 0 && !a.IsZero() && field.Type.PkgPath() != "time":
			inherit(at, written, a, b)
		case joins(field) && a.Kind() == reflect.Slice:
			a.Set(reflect.AppendSlice(reflect.AppendSlice(reflect.MakeSlice(a.Type(), 0, a.Len()+b.Len()), b), a))
		case a.IsZero() && !written[at]:
			a.Set(b)
		}
	}
}

// joins reports whether a list adds up along top, site and route.
func joins(f reflect.StructField) bool { return f.Tag.Get("inherit") == "join" }
