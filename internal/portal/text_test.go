package portal_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/internal/portal"
)

// Every text that a page or a handler names is written, and none is written
// for nobody.
func TestTextsAreComplete(t *testing.T) {
	b, err := os.ReadFile("text/en.json")
	if err != nil {
		t.Fatal(err)
	}
	var texts map[string]string
	if err := json.Unmarshal(b, &texts); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	var families []string
	quoted := regexp.MustCompile(`"([a-z0-9%.-]+\.?)"`)
	for _, pattern := range []string{"pages/*.html", "*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`\.T "([a-z0-9.-]+)"`).FindAllStringSubmatch(string(src), -1) {
				if texts[m[1]] == "" {
					t.Errorf("%s: there is no text %q", f, m[1])
				}
			}
			for _, m := range quoted.FindAllStringSubmatch(string(src), -1) {
				used[m[1]] = true
				if head, _, ok := strings.Cut(m[1], "%"); ok {
					families = append(families, head)
				}
				if strings.HasSuffix(m[1], ".") {
					families = append(families, m[1])
				}
			}
		}
	}
	for key, text := range texts {
		ok := used[key] || strings.HasPrefix(key, "letter.")
		for _, f := range families {
			ok = ok || f != "" && strings.HasPrefix(key, f)
		}
		if !ok {
			t.Errorf("nobody uses the text %q", key)
		}
		if text == "" || strings.ContainsAny(text, "<>&") {
			t.Errorf("%q: %q", key, text)
		}
	}
}

var place = regexp.MustCompile(`\{[0-9]\}`)

// Every language has every text, with the same things filled in.
func TestEveryLanguageIsComplete(t *testing.T) {
	read := func(file string) (texts map[string]string) {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &texts); err != nil {
			t.Fatal(file, err)
		}
		return texts
	}
	places := func(text string) string {
		found := place.FindAllString(text, -1)
		slices.Sort(found)
		return strings.Join(found, "")
	}
	english := read("text/en.json")
	files, err := filepath.Glob("text/*.json")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		texts := read(file)
		for key, text := range english {
			switch got, ok := texts[key]; {
			case !ok:
				t.Errorf("%s: there is no text %q", file, key)
			case got == "" || strings.ContainsAny(got, "<>&") || got != strings.TrimSpace(got):
				t.Errorf("%s: %q: %q", file, key, got)
			case places(got) != places(text):
				t.Errorf("%s: %q has other places than in English: %q", file, key, got)
			}
		}
		for key := range texts {
			if _, ok := english[key]; !ok {
				t.Errorf("%s: nobody uses the text %q", file, key)
			}
		}
	}
}

func TestLanguages(t *testing.T) {
	files := fstest.MapFS{
		"text/en.json": {Data: []byte(`{"a": "one", "b": "two {0} {1}"}`)},
		"text/de.json": {Data: []byte(`{"a": "eins"}`)},
		"text/fr.json": {Data: []byte(`{"a": "un"}`)},
	}
	for accept, want := range map[string]string{
		"": "en one", "de": "de eins", "de-AT,en;q=0.5": "de eins", "fr;q=0.1,de;q=0.9": "de eins", "xx, yy": "en one",
		"*": "en one", strings.Repeat("de,", 200): "en one", "\x00;;;=,": "en one", "fr-CA": "fr un",
	} {
		got, err := portal.Choose(files, accept, "a")
		if err != nil || got != want {
			t.Errorf("%q: %q, %v", accept, got, err)
		}
	}
	if got, _ := portal.Choose(files, "de", "b", "{1}", "x"); got != "de two {1} x" {
		t.Errorf("what is filled in was filled in again: %q", got)
	}
	if got, _ := portal.Choose(files, "de", "none"); got != "de none" {
		t.Error(got)
	}
	if _, err := portal.Choose(fstest.MapFS{"text/en.json": {Data: []byte(`{`)}}, "", ""); err == nil {
		t.Error("a broken file was read")
	}
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.browser().get("/.merlon/login", "Accept-Language", "fr").want(http.StatusOK, `<html lang="en">`, "Sign in")
	pg := w.browser().get("/.merlon/login", "Accept-Language", "de-AT, en;q=0.8").want(http.StatusOK, `<html lang="de">`, "Anmelden")
	if pg.header.Get("Content-Language") != "de" || !strings.Contains(pg.header.Get("Vary"), "Accept-Language") {
		t.Errorf("%v", pg.header)
	}
}

// Whatever a browser asks for, there is a text.
func FuzzAcceptLanguage(f *testing.F) {
	f.Add("de-CH, en;q=0.9")
	f.Add("zh-Hant-x-y;q=1.0000000")
	files := fstest.MapFS{"text/en.json": {Data: []byte(`{"a": "one"}`)}, "text/de.json": {Data: []byte(`{"a": "eins"}`)}}
	f.Fuzz(func(t *testing.T, accept string) {
		if got, err := portal.Choose(files, accept, "a"); err != nil || got != "en one" && got != "de eins" {
			t.Errorf("%q: %q, %v", accept, got, err)
		}
	})
}
