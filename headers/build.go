package headers

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon"
	"golang.org/x/net/http/httpguts"
)

var (
	// Not among them: unsafe-url and no-referrer-when-downgrade, which give
	// the whole address, with what is secret in it, to other sites.
	referrerPolicies = []string{"no-referrer", "same-origin", "origin", "strict-origin", "origin-when-cross-origin", "strict-origin-when-cross-origin"}
	openerPolicies   = []string{"same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"}
	resourcePolicies = []string{"same-origin", "same-site", "cross-origin"}

	stripped        = []string{"Server", "X-Powered-By", "X-AspNet-Version", "X-AspNetMvc-Version", "X-Generator", "X-Runtime", "X-Drupal-*"}
	frameSource     = regexp.MustCompile(`^(?:[a-z][a-z0-9+.-]*:|(?:[a-z][a-z0-9+.-]*://)?(?:\*\.)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::(?:[0-9]{1,5}|\*))?)$`)
	permissionGrant = regexp.MustCompile(`^[a-z][a-z0-9-]*=(?:\*|self|\( *(?:(?:self|\*|"https?://[^"() ,;]+")(?: +(?:self|\*|"https?://[^"() ,;]+"))* *)?\))$`)
)

// A builder collects the mistakes of a Config.
type builder struct{ errs []error }

func (b *builder) bad(setting, value, rule string) {
	b.errs = append(b.errs, merlon.BadSetting(setting, value, rule))
}

// one returns a field's value. It has no room, so that answers can share it:
// whoever appends gets a copy.
func one(v string) []string { return []string{v} }

func (b *builder) oneOf(setting, value, preset string, allowed []string) []string {
	switch {
	case value == "":
		return one(preset)
	case value == off:
		return nil
	case !slices.Contains(allowed, value):
		b.bad(setting, value, "must be off or one of "+strings.Join(allowed, ", "))
	}
	return one(value)
}

func (b *builder) hsts(c HSTS) []string {
	if c.Off {
		if c.Preload || c.IncludeSubdomains || c.MaxAge != 0 {
			b.bad("hsts.off", "true", "cannot stand beside other settings of hsts")
		}
		return nil
	}
	age := c.MaxAge
	if age == 0 {
		age = defaultMaxAge
	}
	if age < 0 || age > maxAgeLimit {
		b.bad("hsts.max_age", strconv.FormatInt(int64(age), 10), "must be from 1 second to 3650 days")
	}
	v := "max-age=" + strconv.FormatInt(int64(age), 10)
	if c.IncludeSubdomains {
		v += "; includeSubDomains"
	}
	if c.Preload {
		v += "; preload"
		if age < preloadMaxAge {
			b.bad("hsts.preload", "true", "needs hsts.max_age of at least 31536000")
		}
		if !c.IncludeSubdomains {
			b.bad("hsts.preload", "true", "needs hsts.include_subdomains")
		}
	}
	return one(v)
}

func (b *builder) permissions(value string) []string {
	switch {
	case value == "":
		return one(defaultPermissions)
	case value == off:
		return nil
	case len(value) > maxPermissions:
		b.bad("permissions_policy", value[:32]+"...", "must be at most 4096 bytes")
		return nil
	}
	for part := range strings.SplitSeq(value, ",") {
		if !permissionGrant.MatchString(strings.Trim(part, " ")) {
			b.bad("permissions_policy", value, `must be off or a list such as camera=(), geolocation=(self "https://map.example")`)
			break
		}
	}
	return one(value)
}

// ancestors returns the policy and the X-Frame-Options that says the same.
func (b *builder) ancestors(value string) (policy, options []string) {
	if value == off {
		return nil, nil
	}
	if value == "" {
		value = "'self'"
	}
	sources := strings.Fields(value)
	for _, s := range sources {
		alone := s == "'none'" && len(sources) == 1
		unquoted := s == "self" || s == "none" // hosts of that name, to a browser
		if unquoted || !alone && s != "'self'" && !frameSource.MatchString(s) {
			b.bad("frame_ancestors", value, "must be off, 'none', or a list of 'self' and of hosts such as https://partner.example")
			break
		}
	}
	if len(sources) == 0 || strings.ContainsAny(value, "\r\n") {
		b.bad("frame_ancestors", value, "must name who may frame the site")
	}
	value = strings.Join(sources, " ")
	return one("frame-ancestors " + value), frameOptions(value)
}

// kept says which fields neither remove nor set may touch, and why.
var kept = map[string]string{
	"Connection":                "belongs to the connection",
	"Keep-Alive":                "belongs to the connection",
	"Upgrade":                   "belongs to the connection",
	"Transfer-Encoding":         "belongs to the connection",
	"Te":                        "belongs to the connection",
	"Trailer":                   "belongs to the connection",
	"Content-Length":            "must fit the body",
	"Content-Encoding":          "must fit the body",
	"Content-Range":             "must fit the body",
	"Content-Type":              "must fit the body",
	"Set-Cookie":                "must come from the application",
	"Strict-Transport-Security": "has a setting of its own: hsts",
	"X-Frame-Options":           "has a setting of its own: frame_ancestors",
	"X-Content-Type-Options":    "is always nosniff",
}

func (b *builder) remove(p *Policy, names []string) {
	for _, n := range stripped {
		p.addRemoval(n)
	}
	for i, n := range names {
		setting, base := fmt.Sprintf("remove[%d]", i), strings.TrimSuffix(n, "*")
		canon := http.CanonicalHeaderKey(n)
		switch {
		case !httpguts.ValidHeaderFieldName(base):
			b.bad(setting, n, "must be a field's name, perhaps with a * at its end")
			continue
		case canon == "Content-Security-Policy":
			b.bad(setting, n, "cannot be removed: the upstream's policy is never loosened")
		case kept[canon] != "":
			b.bad(setting, n, "cannot be removed: "+kept[canon])
		case base != n:
			b.removesKept(setting, n, base)
		}
		p.addRemoval(n)
	}
}

func (b *builder) removesKept(setting, pattern, base string) {
	base = http.CanonicalHeaderKey(base)
	for _, name := range append(slices.Sorted(maps.Keys(kept)), "Content-Security-Policy") {
		if strings.HasPrefix(name, base) {
			b.bad(setting, pattern, "must not match "+name)
			return
		}
	}
}

func (p *Policy) addRemoval(name string) {
	if base, ok := strings.CutSuffix(name, "*"); ok {
		p.removePrefix = append(p.removePrefix, http.CanonicalHeaderKey(base))
		return
	}
	p.remove[http.CanonicalHeaderKey(name)] = true
}

func (b *builder) set(p *Policy, fields map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value, canon, setting := fields[name], http.CanonicalHeaderKey(name), "set."+name
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			b.bad(setting, value, "must be a field's name")
		case kept[canon] != "":
			b.bad(setting, value, "cannot be set: "+kept[canon])
		case strings.TrimSpace(value) == "" || !httpguts.ValidHeaderFieldValue(value):
			b.bad(setting, value, "must be a value without line ends and control characters")
		case slices.ContainsFunc(p.set, func(f field) bool { return f.name == canon }):
			b.bad(setting, value, "is set twice")
		}
		p.set = append(p.set, field{canon, one(value)})
	}
}
