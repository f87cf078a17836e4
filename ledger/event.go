package ledger

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// A Kind says what sort of thing an event records.
type Kind string

const (
	Refusal         Kind = "refusal"          // a guard refused a request
	ResponseRefusal Kind = "response_refusal" // a guard refused after the upstream had been asked
	Challenge       Kind = "challenge"        // a guard asked for proof
	Monitored       Kind = "monitored"        // a monitored guard would have refused; the request passed
	Shadow          Kind = "shadow"           // a guard's shadow would have refused; the request passed
	Access          Kind = "access"           // a request passed
	Login           Kind = "login"            // somebody logged in, or tried, or changed how they do
	Admin           Kind = "admin"            // somebody administered Merlon, or Merlon itself started or stopped
	Alarm           Kind = "alarm"            // something needs a person
)

// Kinds lists every kind, for help texts and completion.
func Kinds() []Kind {
	return []Kind{Refusal, ResponseRefusal, Challenge, Monitored, Shadow, Access, Login, Admin, Alarm}
}

// Names of the OWASP logging vocabulary that other packages use for their
// own events, and two of our own where it has none.
const (
	SysStartup  = "sys_startup"
	SysShutdown = "sys_shutdown"
	SysRestart  = "sys_restart" // a reload
	SysCrash    = "sys_crash"
	Failed      = "guard_failed" // not OWASP's: a guard could not decide
	Passed      = "access"       // not OWASP's: an ordinary request
)

// An Event is one record of the log. The field names of its JSON never change
// meaning. Text that came from a client is bounded, redacted and free of
// control characters once the event is written.
type Event struct {
	Time time.Time `json:"time"`            // UTC
	ID   string    `json:"id,omitempty"`    // the request's id, which the client was told
	Kind Kind      `json:"kind"`            //
	Name string    `json:"event,omitempty"` // OWASP logging vocabulary: "authz_fail"

	Chain string `json:"chain,omitempty"` // the chain that holds it; set on reading
	Seq   uint64 `json:"seq,omitempty"`   // its number in that chain; set on reading
	Count uint64 `json:"count,omitempty"` // how many alike it stands for; 0 means one

	Site      string        `json:"site,omitempty"`
	Route     string        `json:"route,omitempty"`
	Method    string        `json:"method,omitempty"`
	Host      string        `json:"host,omitempty"`
	Path      string        `json:"path,omitempty"` // with the query, redacted
	Client    string        `json:"client,omitempty"`
	Subject   string        `json:"subject,omitempty"`
	UserAgent string        `json:"user_agent,omitempty"`
	JA4       string        `json:"ja4,omitempty"` // what kind of TLS client it was
	Status    int           `json:"status,omitempty"`
	Guard     string        `json:"guard,omitempty"`  // the guard that decided
	Reason    merlon.Reason `json:"reason,omitempty"` // its reason
	Remedy    string        `json:"remedy,omitempty"` // the YAML that would let it pass
	Verdicts  []Verdict     `json:"verdicts,omitempty"`

	Upstream   bool  `json:"upstream,omitempty"` // whether the upstream was asked
	DurationUS int64 `json:"duration_us,omitempty"`
	BytesIn    int64 `json:"bytes_in,omitempty"`
	BytesOut   int64 `json:"bytes_out,omitempty"`
	Inspected  int64 `json:"inspected,omitempty"` // bytes of the body that guards looked at

	Message string            `json:"message,omitempty"` // of alarms and administrative acts
	Attrs   map[string]string `json:"attrs,omitempty"`
}

// A Verdict is one guard's answer as it is recorded.
type Verdict struct {
	Guard     string           `json:"guard"`
	Effect    merlon.Effect    `json:"effect"`
	Reason    merlon.Reason    `json:"reason,omitempty"`
	Status    int              `json:"status,omitempty"`
	Monitored bool             `json:"monitored,omitempty"`
	Shadow    bool             `json:"shadow,omitempty"` // of the guard's other configuration
	Findings  []merlon.Finding `json:"findings,omitempty"`
	Error     string           `json:"error,omitempty"`
}

// Traffic is what the gateway measured about a request.
type Traffic struct {
	Duration  time.Duration
	BytesIn   int64 // of the request body
	BytesOut  int64 // of the response body
	Inspected int64 // bytes of the request body that guards looked at
}

// FromRequest makes the event of a request that ended with o. The verdict
// that was obeyed decides the kind; if none refused, a monitored one that
// would have does, or else a shadow; if there is none either it is an Access
// event. Cookies and
// Authorization are not recorded, nor is anything that looks like a secret.
func FromRequest(r *merlon.Request, o merlon.Outcome, t Traffic) Event {
	e := Event{
		Time: r.Received, ID: r.ID, Kind: Access, Name: Passed,
		Site: r.Site, Route: r.Route, Method: r.Method, Host: r.Host,
		Path: redactTarget(r.URL.EscapedPath(), r.URL.RawQuery), UserAgent: r.UserAgent(), JA4: r.JA4,
		Status: o.Status, Upstream: o.Upstream,
		DurationUS: t.Duration.Microseconds(), BytesIn: t.BytesIn, BytesOut: t.BytesOut, Inspected: t.Inspected,
	}
	if r.Client.IsValid() {
		e.Client = r.Client.String()
	}
	if r.Identity != nil {
		e.Subject = r.Identity.Subject
	}
	verdicts := r.Verdicts()
	if v := deciding(verdicts, o); v != nil {
		e.Guard, e.Reason, e.Remedy = v.Guard, v.Decision.Reason, v.Decision.Remedy
		e.Name = owaspName(v.Guard, v.Decision.Reason, v.Decision.Findings)
		if e.Kind = kindOf(v, o); e.Kind == Shadow {
			e.Remedy = forShadow(e.Remedy)
		}
		if e.Status == 0 && !v.Decision.Passed() {
			e.Status = v.Decision.Code()
		}
	}
	e.Verdicts = recorded(verdicts)
	e.hide(secretsOf(r))
	e.sanitise()
	return e
}

// kindOf says of what kind an event is that v decides.
func kindOf(v *merlon.Verdict, o merlon.Outcome) Kind {
	switch {
	case v.Decision.Shadow:
		return Shadow
	case v.Decision.Monitored:
		return Monitored
	case v.Decision.Effect == merlon.Challenge:
		return Challenge
	case o.Upstream:
		return ResponseRefusal
	}
	return Refusal
}

// deciding finds the verdict that an event is about: the obeyed refusal, else
// the first that monitoring kept from being one, else a shadow's.
func deciding(verdicts []merlon.Verdict, o merlon.Outcome) *merlon.Verdict {
	var obeyed, monitored, shadow *merlon.Verdict
	for i := range verdicts {
		v := &verdicts[i]
		switch {
		case v.Decision.Effect == merlon.Allow:
		case v.Decision.Shadow:
			if shadow == nil {
				shadow = v
			}
		case v.Decision.Monitored:
			if monitored == nil {
				monitored = v
			}
		case obeyed == nil || v.Guard == o.Guard && obeyed.Guard != o.Guard:
			obeyed = v
		}
	}
	return cmp.Or(obeyed, monitored, shadow)
}

// forShadow puts a remedy, which is one section, below that section's shadow.
func forShadow(remedy string) string {
	section, rest, ok := strings.Cut(remedy, "\n")
	if !ok {
		return remedy
	}
	return section + "\n  shadow:\n  " + strings.ReplaceAll(rest, "\n", "\n  ")
}

func recorded(verdicts []merlon.Verdict) []Verdict {
	out := make([]Verdict, 0, len(verdicts))
	for _, v := range verdicts {
		d := v.Decision
		rec := Verdict{Guard: v.Guard, Effect: d.Effect, Reason: d.Reason, Monitored: d.Monitored, Shadow: d.Shadow, Findings: d.Findings}
		if d.Effect != merlon.Allow {
			rec.Status = d.Code()
		}
		if d.Err != nil {
			rec.Error = d.Err.Error()
		}
		out = append(out, rec)
	}
	return out
}

// owaspName gives a refusal its name in the OWASP logging vocabulary.
func owaspName(guard string, reason merlon.Reason, findings []merlon.Finding) string {
	if reason == merlon.GuardFailed {
		return Failed
	}
	guard, _, _ = strings.Cut(guard, "/")
	switch guard {
	case "access":
		return "authz_fail"
	case "limit", "throttle", "challenge", "ban":
		return "excess_rate_limit_exceeded"
	case "stuffing":
		return "authn_login_fail_max"
	case "csrf":
		return "malicious_cors"
	case "origin", "decoy":
		return "malicious_direct_reference"
	case "identity", "password", "mfa", "token", "oidc", "apikey":
		return "authn_login_fail"
	case "session":
		return "session_use_after_expire"
	case "waf":
		for _, f := range findings {
			if strings.HasPrefix(f.Rule, "913") { // CRS: scanner detection
				return "malicious_attack_tool"
			}
		}
	}
	return "input_validation_fail"
}

// Bounds of an event's text, in bytes. A line is at most maxLine, whatever
// the escaping made of it.
const (
	maxPath     = 2 << 10
	maxAgent    = 256
	maxName     = 256
	maxMessage  = 1 << 10
	maxRemedy   = 2 << 10
	maxValue    = 256
	maxVerdicts = 32
	maxFindings = 16
	maxAttrs    = 32
	maxLine     = 16 << 10
)

// sanitise bounds, redacts and makes visible every text of the event. Doing
// it twice changes nothing more.
func (e *Event) sanitise() {
	e.Time = e.Time.UTC()
	for _, s := range []*string{&e.ID, (*string)(&e.Kind), &e.Name, &e.Site, &e.Route, &e.Method, &e.Host,
		&e.Client, &e.Subject, &e.Guard, (*string)(&e.Reason)} {
		*s = clean(*s, maxName)
	}
	e.Path = clean(e.Path, maxPath)
	e.UserAgent = clean(e.UserAgent, maxAgent)
	e.Message = clean(e.Message, maxMessage)
	e.Remedy = cleanLines(e.Remedy, maxRemedy)
	if len(e.Verdicts) > maxVerdicts {
		e.Verdicts = e.Verdicts[:maxVerdicts]
	}
	if len(e.Verdicts) > 0 {
		verdicts := make([]Verdict, len(e.Verdicts)) // the caller's slice stays as it is
		for i, v := range e.Verdicts {
			verdicts[i] = v.sanitised()
		}
		e.Verdicts = verdicts
	}
	if len(e.Attrs) > 0 {
		e.Attrs = cleanAttrs(e.Attrs)
	}
}

func (v Verdict) sanitised() Verdict {
	v.Guard = clean(v.Guard, maxName)
	v.Reason = merlon.Reason(clean(string(v.Reason), maxName))
	v.Error = cleanLines(v.Error, maxMessage)
	if len(v.Findings) > maxFindings {
		v.Findings = v.Findings[:maxFindings]
	}
	findings := make([]merlon.Finding, len(v.Findings))
	for i, f := range v.Findings {
		if f.Value != "" && secretPart(f.Part) {
			f.Message = hideValue(f.Message, f.Value)
			f.Value = hidden
		}
		findings[i] = merlon.Finding{
			Rule: clean(f.Rule, 64), Part: clean(f.Part, 128),
			Value: clean(f.Value, maxValue), Message: clean(f.Message, 2*maxValue),
		}
	}
	v.Findings = findings
	return v
}

func cleanAttrs(attrs map[string]string) map[string]string {
	out := make(map[string]string, min(len(attrs), maxAttrs))
	for _, k := range sortedKeys(attrs) {
		if len(out) == maxAttrs {
			break
		}
		if secretName(k) {
			out[clean(k, 64)] = hidden
			continue
		}
		out[clean(k, 64)] = clean(attrs[k], 2*maxValue)
	}
	return out
}

// hide takes the given secrets out of everything that guards said.
func (e *Event) hide(secrets []string) {
	if len(secrets) == 0 {
		return
	}
	hideAll := func(s string) string {
		s = cutTo(s, 8*maxMessage)
		for _, secret := range secrets {
			s = hideValue(s, secret)
		}
		return s
	}
	e.Remedy = hideAll(e.Remedy)
	for i := range e.Verdicts {
		v := &e.Verdicts[i]
		v.Error = hideAll(v.Error)
		if len(v.Findings) == 0 {
			continue
		}
		findings := make([]merlon.Finding, len(v.Findings))
		for j, f := range v.Findings {
			findings[j] = merlon.Finding{Rule: f.Rule, Part: f.Part, Value: hideAll(f.Value), Message: hideAll(f.Message)}
		}
		v.Findings = findings
	}
}

// secretsOf collects what the request carries in places that hold secrets.
func secretsOf(r *merlon.Request) []string {
	var out []string
	add := func(s string, least int) {
		if len(s) >= least && len(out) < 64 {
			out = append(out, s)
		}
	}
	for name, values := range r.Header {
		if name == "Cookie" || !secretName(name) {
			continue
		}
		for _, v := range values {
			add(v, 4)
			if _, credentials, ok := strings.Cut(v, " "); ok {
				add(credentials, 4)
			}
		}
	}
	if r.Header["Cookie"] != nil {
		for _, c := range (&http.Request{Header: http.Header{"Cookie": r.Header["Cookie"]}}).Cookies() {
			add(c.Value, 8) // shorter ones, such as a language, would tear holes in ordinary text
		}
	}
	for pair := range strings.FieldsFuncSeq(cutTo(r.URL.RawQuery, 4*maxPath), isPairEnd) {
		name, value, _ := strings.Cut(pair, "=")
		if value != "" && secretName(unescape(name)) {
			add(value, 4)
			add(unescape(value), 4)
		}
	}
	return out
}

func isPairEnd(r rune) bool { return r == '&' || r == ';' }

// size estimates the memory and disk that an event takes, cheaply.
func (e *Event) size() int {
	n := 400 + len(e.ID) + len(e.Site) + len(e.Route) + len(e.Host) + len(e.Path) + len(e.UserAgent) +
		len(e.Remedy) + len(e.Message) + 64*len(e.Attrs)
	for i := range e.Verdicts {
		v := &e.Verdicts[i]
		n += 64 + len(v.Error)
		for j := range v.Findings {
			f := &v.Findings[j]
			n += 48 + len(f.Rule) + len(f.Part) + len(f.Value) + len(f.Message)
		}
	}
	return n
}
