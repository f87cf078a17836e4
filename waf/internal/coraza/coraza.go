// Package coraza judges messages by Coraza: the reference that every verdict
// is measured by.
//
// Coraza parses only the request line, the query string and cookies; bodies
// are handed over as they were parsed, and nothing is written to disk.
package coraza

import (
	"errors"
	"fmt"
	"strings"

	corazawaf "github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/collection"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
	"github.com/corazawaf/coraza/v3/types"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

// An Engine is Coraza with a rule set.
type Engine struct {
	waf   corazawaf.WAF
	rules map[int]message.RuleInfo
}

// New compiles a rule set, which takes a few hundred milliseconds.
func New(sources []ruleset.Source) (*Engine, error) {
	e := &Engine{rules: map[int]message.RuleInfo{}}
	var err error
	e.waf, err = Compile(sources, func(r types.RuleMetadata) {
		e.rules[r.ID()] = message.RuleInfo{Tags: r.Tags(), Score: scoreOf(r)}
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// scoreOf returns what one match of a rule adds to an anomaly score, as the
// CRS ties it to the severity.
func scoreOf(r types.RuleMetadata) int {
	if !strings.Contains(r.Raw(), "anomaly_score_pl") || ruleset.Scoring(r.ID()) {
		return 0
	}
	switch r.Severity() {
	case types.RuleSeverityCritical:
		return 5
	case types.RuleSeverityError:
		return 4
	case types.RuleSeverityWarning:
		return 3
	case types.RuleSeverityNotice:
		return 2
	}
	return 0
}

// txn is what the engine uses of Coraza's transaction beside its interface.
// Coraza offers it to plug-ins.
type txn interface {
	types.Transaction
	plugintypes.TransactionState
}

// A settable is a variable of one value that a body processor sets.
type settable interface{ Set(value string) }

func set(v collection.Single, value string) { v.(settable).Set(value) }

// Rules implements message.Engine. Rules that were removed are among them.
func (e *Engine) Rules() map[int]message.RuleInfo { return e.rules }

// Request implements message.Engine.
func (e *Engine) Request(m *message.Request) (message.Exchange, message.Verdict, error) {
	tx, ok := e.waf.NewTransaction().(txn)
	if !ok {
		return nil, message.Verdict{}, errors.New("the rule engine has changed")
	}
	x := &exchange{engine: e, tx: tx}
	tx.ProcessConnection(m.Client, m.Port, "", 0)
	tx.ProcessURI(m.URI, m.Method, m.Proto)
	separate(tx.Variables().ArgsGet())
	tx.SetServerName(m.Host)
	for _, h := range m.Header {
		tx.AddRequestHeader(fresh(h.Name), h.Value)
	}
	separate(tx.Variables().RequestCookies())
	it := tx.ProcessRequestHeaders()
	if it == nil {
		giveBody(tx, &m.Body)
		var err error
		if it, err = tx.ProcessRequestBody(); err != nil {
			x.Close()
			return nil, message.Verdict{}, err
		}
	}
	v := message.Verdict{
		Score:     atoi(first(tx.Variables().TX().Get("blocking_inbound_anomaly_score"))),
		Threshold: atoi(first(tx.Variables().TX().Get("inbound_anomaly_score_threshold"))),
	}
	x.fill(&v, it, 0)
	x.judged = len(tx.MatchedRules())
	return x, v, nil
}

// giveBody hands over what was parsed. Coraza then has no body of its own to
// parse, and writes no files to disk.
func giveBody(tx txn, b *message.Body) {
	v := tx.Variables()
	switch b.Kind {
	case message.Form, message.Text:
		set(v.RequestBodyProcessor(), "URLENCODED")
		set(v.RequestBody(), b.Text)
		set(v.RequestBodyLength(), fmt.Sprint(len(b.Text)))
	case message.JSON:
		set(v.RequestBodyProcessor(), "JSON")
	case message.XML:
		set(v.RequestBodyProcessor(), "XML")
		v.RequestXML().Set("//@*", b.Attrs)
		v.RequestXML().Set("/*", b.Texts)
	case message.Multipart:
		set(v.RequestBodyProcessor(), "MULTIPART")
	}
	for _, a := range b.Args {
		v.ArgsPost().Add(fresh(a.Name), a.Value) // counted already
	}
	total := int64(0)
	for _, p := range b.Parts {
		for _, h := range p.Header {
			v.MultipartPartHeaders().Add(fresh(p.Name), h.Name+": "+h.Value)
		}
		v.MultipartName().Add(fresh(p.Name), p.Name)
		total += p.Size
		if !p.File {
			continue
		}
		for _, name := range p.FileNames {
			v.MultipartFilename().Add(fresh(p.Name), name)
			v.Files().Add(fresh(""), name)
			v.FilesSizes().Add(fresh(name), fmt.Sprint(p.Size)) // Coraza itself keeps one of each name
		}
		v.FilesNames().Add(fresh(""), p.Name)
	}
	if b.Kind == message.Multipart {
		set(v.FilesCombinedSize(), fmt.Sprint(total))
	}
}

// fresh returns the same key in memory of its own, so that the engine cannot
// take two values under one name for the same.
func fresh(key string) string { return (key + "\x00")[:len(key)] }

// separate gives every value of a collection a key of its own where keys repeat.
func separate(c collection.Map) {
	all := c.FindAll()
	if len(all) < 2 {
		return
	}
	seen := make(map[string]bool, len(all))
	repeated := false
	for _, d := range all {
		repeated = repeated || seen[d.Key()]
		seen[d.Key()] = true
	}
	if !repeated {
		return
	}
	for key := range seen {
		c.Remove(key)
	}
	for _, d := range all {
		c.Add(fresh(d.Key()), d.Value())
	}
}

// An exchange is one transaction.
type exchange struct {
	engine *Engine
	tx     txn
	judged int // how many matches belong to the request
}

// Response implements message.Exchange.
func (x *exchange) Response(a *message.Response) (message.Verdict, error) {
	for _, h := range a.Header {
		x.tx.AddResponseHeader(fresh(h.Name), h.Value)
	}
	it := x.tx.ProcessResponseHeaders(a.Status, a.Proto)
	if it == nil && a.Body != nil {
		if _, _, err := x.tx.WriteResponseBody(a.Body); err != nil {
			return message.Verdict{}, err
		}
	}
	if it == nil {
		if _, err := x.tx.ProcessResponseBody(); err != nil {
			return message.Verdict{}, err
		}
		it = x.tx.Interruption()
	}
	v := message.Verdict{
		Score:     atoi(first(x.tx.Variables().TX().Get("blocking_outbound_anomaly_score"))),
		Threshold: atoi(first(x.tx.Variables().TX().Get("outbound_anomaly_score_threshold"))),
	}
	x.fill(&v, it, x.judged)
	return v, nil
}

// Close implements message.Exchange.
func (x *exchange) Close() {
	_ = x.tx.Close() // removes temporary files; there are none
}

// fill reads what matched, from the given match on.
func (x *exchange) fill(v *message.Verdict, it *types.Interruption, from int) {
	if it != nil && it.Action != "allow" && it.Action != "pass" {
		v.Deny, v.By = true, it.RuleID
	}
	matched := x.tx.MatchedRules()[from:]
	for _, mr := range matched {
		if id := mr.Rule().ID(); id != 0 {
			v.Fired = append(v.Fired, id)
		}
	}
	if !v.Deny && v.Score == 0 {
		return
	}
	for _, mr := range matched {
		id := mr.Rule().ID()
		score := scoreOf(mr.Rule()) // with its chain, which New cannot see
		if score == 0 && (id != v.By || ruleset.Scoring(id)) {
			continue
		}
		h := message.Hit{Rule: id, Message: mr.Message()}
		last := 0
		for _, d := range mr.MatchedDatas() {
			last = max(last, d.ChainLevel())
			h.Spots = append(h.Spots, message.Spot{
				Target: ruleset.TargetOf(d.Variable().Name()), Name: d.Key(), Value: d.Value(), Head: d.ChainLevel() == 0,
			})
		}
		for _, d := range mr.MatchedDatas() {
			if d.ChainLevel() == last {
				h.Score += score
			}
		}
		v.Hits = append(v.Hits, h)
	}
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

func atoi(s string) int {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || n > 1<<30 {
			return n
		}
		n = n*10 + int(c-'0')
	}
	return n
}
