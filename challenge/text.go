package challenge

import (
	"embed"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"maps"
	"strconv"
	"strings"
	plain "text/template"

	"golang.org/x/text/language"
)

//go:embed text/*.json
var textFiles embed.FS

// texts are what people read, by language; English is first.
type texts struct {
	all     []catalogue
	matcher language.Matcher
}

type catalogue struct {
	tag   language.Tag
	texts map[string]string
	page  *template.Template
}

// newPage fills in what stands in double brackets: the texts, and what else is
// the same on every page.
func (c *catalogue) newPage(source string, fixed map[string]string) error {
	outer, err := plain.New("challenge").Delims("[[", "]]").Option("missingkey=error").Parse(source)
	if err != nil {
		return err
	}
	words := maps.Clone(fixed)
	words["Lang"] = c.tag.String()
	for k, v := range c.texts {
		words[k] = strings.ReplaceAll(html.EscapeString(v), "{0}", "{{.Rest}}")
	}
	var b strings.Builder
	if err := outer.Execute(&b, words); err != nil {
		return err
	}
	c.page, err = template.New("challenge").Parse(b.String())
	return err
}

func loadTexts(page string, fixed map[string]string) (*texts, error) {
	t := &texts{}
	var tags []language.Tag
	for _, tag := range [...]language.Tag{language.English, language.German} {
		b, err := textFiles.ReadFile("text/" + tag.String() + ".json")
		if err != nil {
			return nil, err
		}
		c := catalogue{tag: tag}
		if err := json.Unmarshal(b, &c.texts); err != nil {
			return nil, fmt.Errorf("text/%s.json: %w", tag, err)
		}
		if err := c.newPage(page, fixed); err != nil {
			return nil, err
		}
		t.all, tags = append(t.all, c), append(tags, tag)
	}
	t.matcher = language.NewMatcher(tags)
	return t, nil
}

const maxAccept = 256 // bytes of Accept-Language that are looked at

// choose returns the catalogue that an Accept-Language field asks for.
func (t *texts) choose(accept string) catalogue {
	if len(accept) > maxAccept {
		return t.all[0]
	}
	tags, _, err := language.ParseAcceptLanguage(accept)
	if err != nil || len(tags) == 0 {
		return t.all[0]
	}
	_, i, _ := t.matcher.Match(tags...)
	return t.all[i]
}

// get returns a text with {0} filled in.
func (c catalogue) get(key string, arg int) string {
	return strings.ReplaceAll(c.texts[key], "{0}", strconv.Itoa(arg))
}
