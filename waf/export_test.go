package waf

import (
	"fmt"
	"strings"

	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types"

	reference "github.com/merlon-dev/merlon/waf/internal/coraza"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Reference is plain Coraza with the set-up of a Guard.
func Reference(c Config) (coraza.WAF, error) {
	c = c.withDefaults()
	t, err := newMediaTypes(c.ContentTypes)
	if err != nil {
		return nil, err
	}
	rules, err := sources(c, t)
	if err != nil {
		return nil, err
	}
	return reference.Compile(rules, func(types.RuleMetadata) {})
}

// ReadMultipart reads a form that is pushed in pieces, and shows its parts.
func ReadMultipart(boundary string, text []byte, size int) (string, error) {
	f := newFields(1<<30, 1<<20)
	r := newMultipartReader(boundary, f)
	for len(text) > 0 {
		n := min(size, len(text))
		if err := r.feed(text[:n]); err != nil {
			return "", err
		}
		text = text[n:]
	}
	if err := r.finish(); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, p := range f.parts {
		ShowPart(&b, p.Name, int(p.Size))
	}
	return b.String(), nil
}

// ShowPart writes a part as ReadMultipart shows it.
func ShowPart(b *strings.Builder, name string, size int) {
	fmt.Fprintf(b, "%q %d\n", name, size)
}

// ReadValues returns every name and value that is read in a document.
func ReadValues(contentType, text string) ([]string, error) {
	t, err := newMediaTypes(nil)
	if err != nil {
		return nil, err
	}
	k, boundary, err := t.kind(contentType)
	if err != nil {
		return nil, err
	}
	b := message.Body{Kind: k}
	if err := parse(&b, boundary, []byte(text), 1<<20, defaultArguments, true); err != nil {
		return nil, err
	}
	values := b.Texts
	for _, a := range b.Args {
		values = append(values, a.Name, a.Value)
	}
	return values, nil
}

// ReadContentType returns the boundary of a type that is accepted.
func ReadContentType(s string) (string, error) {
	t, err := newMediaTypes(nil)
	if err != nil {
		return "", err
	}
	_, boundary, err := t.kind(s)
	return boundary, err
}
