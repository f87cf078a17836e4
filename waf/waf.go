// Package waf refuses requests that look like an attack, and answers that
// look like a leak: the OWASP Core Rule Set 4 judges every part of a request
// that an application could read, and what cannot be read is refused, never
// passed unseen.
//
// It knows attacks by their looks. It does not know what an application does
// with its input, does not open uploaded files, and lets types of body that
// have no text in them (octet-stream, protobuf) pass unread, unless they are
// JSON all the same; the decision then says how much was seen.
package waf

import (
	"errors"
	"net/http"
	"strconv"
	"sync"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Config configures a [Guard]. The zero Config blocks at paranoia level 1.
type Config struct {
	// Paranoia is the CRS paranoia level, 1 to 4: how many rules are asked.
	// Level 1 lets ordinary applications work; each further level finds more
	// and needs more exclusions. Default 1. Example:
	//
	//	paranoia: 2
	Paranoia int `yaml:"paranoia,omitempty"`
	// Threshold is the anomaly score from which on a request is refused. A
	// critical rule adds 5, an error 4, a warning 3, a notice 2. At least 1.
	// Default 5: one critical rule is enough. Example:
	//
	//	threshold: 10
	Threshold int `yaml:"threshold,omitempty"`
	// OutboundThreshold is the same for answers. Default 4: one rule about
	// an error page's content is enough. Example:
	//
	//	outbound_threshold: 8
	OutboundThreshold int `yaml:"outbound_threshold,omitempty"`
	// Limit is how much of a body is inspected: the whole of a form, a JSON,
	// XML or text document after decompression, or of all fields of a
	// multipart form together. What is longer is refused with 413. Files in
	// multipart forms and opaque types that are no JSON are not inspected and
	// may be longer.
	// From 1KiB to 64MiB. Default 1MiB. Example:
	//
	//	limit: 4MiB
	Limit merlon.Size `yaml:"limit,omitempty"`
	// Arguments is how many values a request may have in its query, and how
	// many in its body: form fields, leaves of a JSON document, texts and
	// attributes of an XML document. Each costs time. From 1 to 100000.
	// Default 1000. Example:
	//
	//	arguments: 5000
	Arguments int `yaml:"arguments,omitempty"`
	// ContentTypes are accepted in addition to form, multipart/form-data,
	// JSON, XML, text/plain, octet-stream, gRPC, protobuf, csp-report, and
	// everything that ends in +json or +xml; * stands for any characters.
	// What ends in json or xml is inspected as that, other text as text; the
	// rest streams past uninspected. What begins with a JSON document is
	// inspected as that, too, whatever its type. Default: none. Example:
	//
	//	content_types: [application/x-ndjson, "image/*"]
	ContentTypes []string `yaml:"content_types,omitempty"`
	// Exclude turns rules off, wholly or for one part of the request. `merlon
	// why ID` prints the smallest exclusion that lets a request pass.
	// Default: none. Example:
	//
	//	exclude:
	//	  - {rule: 942100, target: args, name: q}
	//	  - {rule: [920420, 920480]}
	Exclude []Exclude `yaml:"exclude,omitempty" inherit:"join"`
	// Rules are files of rules in SecLang, read after the CRS set-up and
	// before the CRS rules: the place for rules of your own, setvar and ctl.
	// Ids 99000 to 99999 are Merlon's. Default: none. Example:
	//
	//	rules: [/etc/merlon/own.conf]
	Rules []string `yaml:"rules,omitempty"`
	// RulesAfter are the same, read after the CRS rules: the place for
	// SecRuleRemoveById and SecRuleUpdateTargetById. Default: none. Example:
	//
	//	rules_after: [/etc/merlon/exclusions.conf]
	RulesAfter []string `yaml:"rules_after,omitempty"`
	// IgnoreResponses turns the rules for answers off: no answer is held back,
	// or broken off, to look for error messages, source code and web shells.
	// Default false. Example:
	//
	//	ignore_responses: true
	IgnoreResponses bool `yaml:"ignore_responses,omitempty"`
	// Engine is what evaluates the rules: native, or coraza, which also runs
	// rules that native does not know, at a hundred times the cost. Default
	// native. Example:
	//
	//	engine: coraza
	Engine string `yaml:"engine,omitempty"`
	// Verify is the share of requests that are judged by both engines. If they
	// disagree, the stricter verdict holds, and the event and the metrics say so
	// by the reason verdicts-differ: merlon_monitored_total if the request
	// passed, merlon_requests_total if it was refused. From 0 to 1; needs the
	// native engine. Default 0. Example:
	//
	//	verify: 0.01
	Verify float64 `yaml:"verify,omitempty"`
	// Shadow is a second configuration, to be tried on the same requests: it
	// is this one with the settings changed that stand here (exclude adds up).
	// What it says is recorded, in events, `merlon why` and the metric
	// merlon_shadow_total, and never obeyed. It sees what is judged before the
	// upstream is asked: not the rest of a long multipart form, and no answer.
	// It costs as much again as the WAF without it; verify means nothing here,
	// and a shadow has no shadow. Default: none. Example:
	//
	//	shadow: {paranoia: 2}
	Shadow *Config `yaml:"shadow,omitempty"`
}

const (
	// VerdictsDiffer: the two engines that were asked do not agree in which
	// rules the request or its answer matched (see verify). It was refused if
	// either of them refuses it. Please report it.
	VerdictsDiffer merlon.Reason = "verdicts-differ"
	// Clean: no rule matched, or too few to reach the threshold.
	Clean merlon.Reason = "clean"
	// Attack: the request looks like an attack; its anomaly score reached the
	// threshold, or a rule of your own denied it. If it is a false alarm,
	// exclude the rules that the event names, for the part that it names.
	Attack merlon.Reason = "attack"
	// ContentType: the type of the body is not one that can be inspected or
	// is known to be opaque, is missing, or is given in an ambiguous way. If
	// the application needs the type, add it to content_types.
	ContentType merlon.Reason = "content-type"
	// Encoding: the body is compressed in a way that is not understood; only
	// one layer of gzip or br is.
	Encoding merlon.Reason = "content-encoding"
	// TooLarge: the body is longer than the inspection limit and may not pass
	// uninspected. Raise limit if the application needs such bodies.
	TooLarge merlon.Reason = "body-too-large-to-inspect"
	// TooManyArguments: the request has more values than are inspected. Raise
	// arguments if the application needs so many.
	TooManyArguments merlon.Reason = "too-many-arguments"
	// Malformed: the body is not what its content type says, or two parsers
	// would read it differently. The sender must be repaired.
	Malformed merlon.Reason = "malformed-body"
	// ResponseClean: no rule for answers reached the threshold.
	ResponseClean merlon.Reason = "response-clean"
	// ResponseLeak: the application's answer contains what should not leave:
	// an error message of a database, source code, a web shell. If it had begun
	// already, it was broken off. Mend the application; if it is a false alarm,
	// exclude the rule.
	ResponseLeak merlon.Reason = "response-leak"
)

const (
	defaultLimit     = 1 * merlon.MiB
	maxLimit         = 64 * merlon.MiB
	defaultArguments = 1000
	maxArguments     = 100_000
)

// A Guard refuses requests that look like an attack, and answers that look
// like a leak.
type Guard struct {
	limit     int64
	arguments int
	types     *body.Types
	excluded  exclusions
	engine    message.Engine
	responses bool

	open sync.Map // *merlon.Request -> *exchange, from Check to Done
}

// New returns a Guard. It compiles the rules, which takes a few hundred
// milliseconds; routes with equal settings should share one Guard.
func New(c Config) (*Guard, error) {
	c = c.withDefaults()
	g := &Guard{limit: int64(c.Limit), arguments: c.Arguments, responses: !c.IgnoreResponses}
	var errs []error
	between := func(setting string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, merlon.BadSetting(setting, strconv.Itoa(v),
				"must be from "+strconv.Itoa(low)+" to "+strconv.Itoa(high)))
		}
	}
	if c.Shadow != nil {
		errs = append(errs, merlon.BadSetting("shadow", "", "must not be set: a shadow is a guard of its own (merlon.Shadow) and has none itself"))
	}
	between("paranoia", c.Paranoia, 1, 4)
	between("threshold", c.Threshold, 1, 1_000_000)
	between("outbound_threshold", c.OutboundThreshold, 1, 1_000_000)
	between("arguments", c.Arguments, 1, maxArguments)
	if c.Engine != nativeEngine && c.Engine != corazaEngine {
		errs = append(errs, merlon.BadSetting("engine", c.Engine, "must be native or coraza"))
	}
	if !(c.Verify >= 0 && c.Verify <= 1) {
		errs = append(errs, merlon.BadSetting("verify", strconv.FormatFloat(c.Verify, 'g', -1, 64), "must be from 0 to 1"))
	} else if c.Verify > 0 && c.Engine == corazaEngine {
		errs = append(errs, merlon.BadSetting("verify", strconv.FormatFloat(c.Verify, 'g', -1, 64), "needs engine: native; coraza is what it compares with"))
	}
	if c.Limit < merlon.KiB || c.Limit > maxLimit {
		errs = append(errs, merlon.BadSetting("limit", c.Limit.String(), "must be from 1KiB to "+maxLimit.String()))
	}
	types, err := body.NewTypes(c.ContentTypes)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	g.types = types
	if err := g.load(c); err != nil {
		return nil, err
	}
	return g, nil
}

// load compiles the rules.
func (g *Guard) load(c Config) error {
	rules, err := sources(c, g.types)
	if err != nil {
		return err
	}
	g.engine, g.excluded, err = newEngine(c, rules)
	return err
}

func (c Config) withDefaults() Config {
	or := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	or(&c.Paranoia, 1)
	or(&c.Threshold, 5)
	or(&c.OutboundThreshold, 4)
	or(&c.Arguments, defaultArguments)
	if c.Limit == 0 {
		c.Limit = defaultLimit
	}
	if c.Engine == "" {
		c.Engine = nativeEngine
	}
	return c
}

// Name is "waf".
func (g *Guard) Name() string { return "waf" }

// Check judges the request by its head and by as much of its body as must be
// read. The rest of a long multipart form is judged while it streams. Each
// Check must be followed by one [Guard.Done].
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	m := newMessage(r)
	seen, d := g.readBody(r, m)
	if d != nil {
		return *d
	}
	x, v, err := g.engine.Request(m)
	if err != nil {
		return merlon.Unable(err)
	}
	if seen.stream != nil {
		seen.stream.begin(v)
	}
	if v.Deny || !g.responses {
		x.Close()
	} else {
		g.open.Store(r, &exchange{rules: x})
	}
	if v.Deny {
		return g.denied(m, v)
	}
	d2 := passed(Clean, v)
	d2.Findings = append(d2.Findings, seen.findings()...)
	return d2
}

// CheckResponse judges the answer: its head always, its body if it is text
// that people read. At most half a MiB is held back while it is judged; what
// follows is judged while it is delivered, and breaks off where it leaks.
func (g *Guard) CheckResponse(r *merlon.Request, res *http.Response) merlon.Decision {
	x, ok := g.open.Load(r)
	if !ok {
		return merlon.Decision{Effect: merlon.Allow}
	}
	return g.judgeResponse(r, x.(*exchange), res)
}

// Done forgets the request.
func (g *Guard) Done(r *merlon.Request, _ merlon.Outcome) {
	if x, ok := g.open.LoadAndDelete(r); ok {
		x.(*exchange).close()
	}
}

// Middleware puts the guard in front of next; answers are not judged.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }
