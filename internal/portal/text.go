package portal

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/text/language"
)

// Every text that people see is in text/<language>.json; English is complete,
// and what another language does not have is shown in English.
//
//go:embed text/*.json
var textFiles embed.FS

// texts are the catalogues by language.
type texts struct {
	byTag   []catalogue
	matcher language.Matcher
}

type catalogue struct {
	tag     language.Tag
	texts   map[string]string
	english map[string]string
}

func loadTexts(files fs.FS) (*texts, error) {
	names, err := fs.Glob(files, "text/*.json")
	if err != nil {
		return nil, err
	}
	english, err := readTexts(files, "text/en.json")
	if err != nil {
		return nil, err
	}
	t := &texts{byTag: []catalogue{{language.English, english, english}}}
	tags := []language.Tag{language.English}
	for _, name := range names {
		code := strings.TrimSuffix(strings.TrimPrefix(name, "text/"), ".json")
		if code == "en" {
			continue
		}
		tag, err := language.Parse(code)
		if err != nil {
			return nil, err
		}
		m, err := readTexts(files, name)
		if err != nil {
			return nil, err
		}
		t.byTag, tags = append(t.byTag, catalogue{tag, m, english}), append(tags, tag)
	}
	t.matcher = language.NewMatcher(tags)
	return t, nil
}

func readTexts(files fs.FS, name string) (map[string]string, error) {
	b, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, err
	}
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// maxAccept bounds how much of an Accept-Language field is looked at.
const maxAccept = 256

// choose returns the catalogue that an Accept-Language field asks for.
func (t *texts) choose(accept string) catalogue {
	if len(accept) > maxAccept {
		return t.byTag[0]
	}
	tags, _, err := language.ParseAcceptLanguage(accept)
	if err != nil || len(tags) == 0 {
		return t.byTag[0]
	}
	_, i, _ := t.matcher.Match(tags...)
	return t.byTag[i]
}

// get returns a text with its {0}, {1}, … filled in. A key that nobody has
// written is shown itself: a page with an odd word is better than none.
func (c catalogue) get(key string, args ...any) string {
	s, ok := c.texts[key]
	if !ok {
		s, ok = c.english[key]
	}
	if !ok {
		return key
	}
	if len(args) == 0 {
		return s
	}
	pairs := make([]string, 0, 2*len(args))
	for i, a := range args {
		pairs = append(pairs, fmt.Sprintf("{%d}", i), fmt.Sprint(a))
	}
	return strings.NewReplacer(pairs...).Replace(s)
}

// has reports whether there is such a text.
func (c catalogue) has(key string) bool {
	_, ok := c.english[key]
	return ok
}
