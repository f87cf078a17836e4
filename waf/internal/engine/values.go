package engine

import (
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// An entry is a value as a rule sees it.
type entry struct {
	v        seclang.Variable
	key, val string
}

// values appends the values that a target chooses.
func (t *transaction) values(to []entry, g *target) []entry {
	start := len(to)
	switch g.Var {
	case seclang.Args:
		to = t.keyed(to, g, seclang.ArgsGet, false)
		to = t.keyed(to, g, seclang.ArgsPost, false)
	case seclang.ArgsNames:
		to = t.keyed(to, g, seclang.ArgsGet, true)
		to = t.keyed(to, g, seclang.ArgsPost, true)
	case seclang.TX:
		to = t.txValues(to, g)
	case seclang.MatchedVars, seclang.MatchedVarsNames:
		for _, m := range t.matched {
			val := m.val
			if g.Var == seclang.MatchedVarsNames {
				val = m.key
			}
			if g.chooses(strings.ToLower(m.key)) && !t.cut(g.Var, m.key) {
				to = append(to, entry{g.Var, m.key, val})
			}
		}
	case seclang.RuleMeta:
	default:
		if of, names, ok := collection(g.Var); ok {
			to = t.keyed(to, g, of, names)
		} else if !g.excepts("") && (len(t.cuts) == 0 || !t.cut(g.Var, "")) {
			to = append(to, entry{g.Var, "", t.single(g.Var)})
		}
	}
	if g.Count {
		n := len(to) - start
		to = append(to[:start], entry{g.Var, g.says, itoa(n)})
	}
	return to
}

// collection returns the variable that holds the values of a keyed one, and
// whether it is their keys that are meant.
func collection(v seclang.Variable) (of seclang.Variable, names, ok bool) {
	switch v {
	case seclang.ArgsGetNames:
		return seclang.ArgsGet, true, true
	case seclang.ArgsPostNames:
		return seclang.ArgsPost, true, true
	case seclang.RequestCookiesNames:
		return seclang.RequestCookies, true, true
	case seclang.RequestHeadersNames:
		return seclang.RequestHeaders, true, true
	case seclang.ResponseHeadersNames:
		return seclang.ResponseHeaders, true, true
	case seclang.ArgsGet, seclang.ArgsPost, seclang.RequestCookies, seclang.RequestHeaders, seclang.ResponseHeaders, seclang.Files,
		seclang.FilesNames, seclang.FilesSizes, seclang.MultipartFilename, seclang.MultipartName, seclang.MultipartPartHeaders, seclang.XML:
		return v, false, true
	}
	return 0, false, false
}

// ofBody reports whether a variable has its values from the request's body.
func ofBody(v seclang.Variable) bool {
	switch v {
	case seclang.ArgsPost, seclang.ArgsPostNames, seclang.Files, seclang.FilesNames, seclang.FilesSizes, seclang.FilesCombinedSize,
		seclang.MultipartFilename, seclang.MultipartName, seclang.MultipartPartHeaders, seclang.XML, seclang.RequestBody, seclang.RequestBodyLength:
		return true
	}
	return false
}

func (t *transaction) keyed(to []entry, g *target, of seclang.Variable, names bool) []entry {
	if t.phase == 1 && ofBody(of) || t.phase <= 2 && isAnswer(of) {
		return to
	}
	for _, it := range t.items[t.span[of].from:t.span[of].to] {
		if g.Key != "" || g.Regex != nil || len(g.Except) > 0 {
			if low := it.low; !chooses(&g.Selector, low) || g.excepts(low) {
				continue
			}
		}
		if len(t.cuts) > 0 && t.cut(g.Var, it.key) {
			continue
		}
		val := it.val
		if names {
			val = it.key
		}
		to = append(to, entry{g.named(), it.key, val})
	}
	return to
}

// single returns the value of a variable that has but one.
func (t *transaction) single(v seclang.Variable) string {
	if t.phase == 1 && ofBody(v) {
		switch v {
		case seclang.RequestBodyLength, seclang.FilesCombinedSize:
			return "0"
		}
		return ""
	}
	if t.phase == 3 && ofAnswer(v) || t.phase <= 2 && isAnswer(v) {
		return ""
	}
	switch v {
	case seclang.MatchedVar:
		return t.matchedVar
	case seclang.MatchedVarName:
		return t.matchedName
	case seclang.ReqbodyProcessor:
		if t.phase == 1 {
			return t.early
		}
	case seclang.ArgsCombinedSize:
		n := 0
		for _, v := range []seclang.Variable{seclang.ArgsGet, seclang.ArgsPost} {
			if t.phase == 1 && v == seclang.ArgsPost {
				continue
			}
			for _, it := range t.items[t.span[v].from:t.span[v].to] {
				n += len(it.key) + len(it.val)
			}
		}
		return itoa(n)
	case seclang.UniqueID:
		if t.scalar[v] == "" {
			t.scalar[v] = newID()
		}
	}
	return t.scalar[v]
}

func (g *target) chooses(key string) bool {
	return chooses(&g.Selector, key) && !g.excepts(key)
}

// chooses reports whether a selector means a key, in lower case.
func chooses(s *seclang.Selector, key string) bool {
	if s.Regex != nil {
		return s.Regex.MatchString(key)
	}
	return s.Key == "" || s.Key == key
}

func (g *target) excepts(low string) bool {
	for i := range g.Except {
		x := &g.Except[i]
		if x.Regex != nil && x.Regex.MatchString(low) || x.Regex == nil && (x.Key == "" || strings.ToLower(x.Key) == low) {
			return true
		}
	}
	return false
}

var small = func() (s [1000]string) {
	for i := range s {
		s[i] = strconv.Itoa(i)
	}
	return
}()

// itoa is strconv.Itoa without allocation for what is small.
func itoa(n int) string {
	if n >= 0 && n < len(small) {
		return small[n]
	}
	return strconv.Itoa(n)
}
