package field

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A walk goes through JSON once.
type walk struct {
	f   *finder
	dec *json.Decoder
	// queries are the GraphQL operations that were met.
	queries []string
	// uses are the GraphQL variables that stand for the field, each as often as
	// it is used. If set, the walk is a second one, for nothing but these.
	uses map[string]int
}

// A spot is what is known about a value from where it stands.
type spot struct {
	depth     int
	found     int   // how often each scalar in it is a value of the field
	from      []int // parts of the name that may be members of it
	outer     bool  // it is an outermost object or array, or in such an array
	variables int   // how deep it is in GraphQL variables, from 1 on; 0: not
}

// json looks at JSON: one value, or several after each other.
func (f *finder) json(body []byte) error {
	first := walk{f: f, dec: decoder(body)}
	if err := first.all(spot{from: []int{0}, outer: true}); err != nil {
		return err
	}
	if len(first.queries) == 0 {
		return nil
	}
	uses, err := f.operations(first.queries)
	if err != nil || len(uses) == 0 {
		return err
	}
	second := walk{f: f, dec: decoder(body), uses: uses}
	return second.all(spot{outer: true})
}

// graphQL looks at operations and variables that stand apart.
func (f *finder) graphQL(queries, variables []string) error {
	uses, err := f.operations(queries)
	if err != nil {
		return err
	}
	for _, v := range variables {
		if err := f.variables(v, nil); err != nil {
			return err
		}
		if len(uses) == 0 {
			continue
		}
		if err := f.variables(v, uses); err != nil {
			return err
		}
	}
	return nil
}

// variables looks at GraphQL variables that are the text of some string.
func (f *finder) variables(text string, uses map[string]int) error {
	if !looksLikeJSON([]byte(text)) {
		return nil // some other field of that name
	}
	w := walk{f: f, dec: decoder([]byte(text)), uses: uses}
	return w.all(spot{variables: 1})
}

func decoder(text []byte) *json.Decoder {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d
}

// all walks through every value up to the end.
func (w *walk) all(s spot) error {
	for {
		t, err := w.dec.Token()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = w.value(t, s)
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrTooMany):
			return err
		default:
			return unreadable("is malformed JSON, or nested more than %d deep", MaxDepth)
		}
	}
}

func (w *walk) value(t json.Token, s spot) error {
	d, composite := t.(json.Delim)
	if !composite {
		return w.scalar(t, s)
	}
	if s.depth++; s.depth > MaxDepth {
		return ErrUnreadable
	}
	each := w.element
	if d == '{' {
		each = w.member
		if w.uses == nil && 0 < s.variables && s.variables <= maxVariables && !slices.Contains(s.from, 0) {
			s.from = append(slices.Clip(s.from), 0)
		}
	}
	for w.dec.More() {
		if err := each(s); err != nil {
			return err
		}
	}
	_, err := w.dec.Token() // the closing delimiter
	return err
}

func (w *walk) scalar(t json.Token, s spot) error {
	if t == nil || s.found == 0 {
		return nil
	}
	text := fmt.Sprint(t)
	if n, isNumber := t.(json.Number); isNumber {
		text = number(n.String())
	}
	for range s.found {
		if err := w.f.add(text); err != nil {
			return err
		}
	}
	return nil
}

// number returns the one spelling of a number: 7, 7.0 and 70e-1 name one user
// for most backends. An integer has one spelling only, however large.
func number(text string) string {
	if !strings.ContainsAny(text, ".eE") && text != "-0" {
		return text
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	return strconv.FormatFloat(n+0, 'f', -1, 64) // +0: there is no -0
}

func (w *walk) element(s spot) error {
	t, err := w.dec.Token()
	if err != nil {
		return err
	}
	s.outer = s.outer && s.depth == 1
	if s.variables > 0 {
		s.variables++
	}
	return w.value(t, s)
}

func (w *walk) member(s spot) error {
	t, err := w.dec.Token()
	if err != nil {
		return err
	}
	key, _ := t.(string)
	if t, err = w.dec.Token(); err != nil {
		return err
	}
	in := spot{depth: s.depth, found: s.found}
	for _, at := range s.from {
		end := w.f.match(key, at, func(next int) { in.from = append(in.from, next) })
		if end {
			in.found = max(in.found, 1)
		}
	}
	if s.variables > 0 {
		in.variables = s.variables + 1
		if s.variables == 1 {
			in.found = max(in.found, w.uses[key])
		}
	}
	if !s.outer {
		return w.value(t, in)
	}
	text, isText := t.(string)
	switch {
	case strings.EqualFold(key, "variables") && isText:
		if err := w.f.variables(text, w.uses); err != nil {
			return err
		}
	case strings.EqualFold(key, "variables"):
		in.variables = 1
	case strings.EqualFold(key, "query") && isText && w.uses == nil && strings.Contains(text, "{"):
		w.queries = append(w.queries, text)
	}
	return w.value(t, in)
}

// match compares a member's name with the parts of the field's from one on: it
// may be one of them, or several with the dots in it. It reports whether it
// is all that is left, and tells next where the name goes on below otherwise.
func (f *finder) match(key string, from int, next func(int)) (end bool) {
	for to := from + 1; to <= len(f.parts); to++ {
		if to > from+1 && !strings.Contains(key, ".") {
			break
		}
		if !strings.EqualFold(key, strings.Join(f.parts[from:to], ".")) {
			continue
		}
		if to == len(f.parts) {
			return true
		}
		next(to)
	}
	return false
}
