package merlon_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
)

// Every package says what it promises, and every exported name what it is.
func TestEverythingIsDocumented(t *testing.T) {
	for dir, files := range goFolders(t) {
		documented := false
		for _, f := range files {
			documented = documented || f.Doc.Text() != ""
			for _, d := range f.Decls {
				for _, name := range undocumented(d) {
					t.Errorf("%s: %s has no comment", dir, name)
				}
			}
		}
		if !documented {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// Links in the manual lead somewhere, and to a heading that is there.
func TestLinksInDocs(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]*))?\)`)
	for page, text := range manual(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			to, err := os.ReadFile(target)
			if info, serr := os.Stat(target); serr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s: the link to %s leads nowhere", page, m[1])
			} else if m[2] != "" && !slices.Contains(headings(string(to)), m[2]) {
				t.Errorf("%s: %s has no heading #%s", page, target, m[2])
			}
		}
	}
}

// headings returns the names by which a page's headings are linked to, as
// GitHub makes them.
func headings(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^#+ +(.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// What the manual tells to write into a configuration can be written there: a
// whole file, or a part of one, or of a site.
func TestConfigurationsInDocs(t *testing.T) {
	block := regexp.MustCompile("(?ms)^ *```yaml\n(.*?)^ *```$")
	seen := 0
	for page, text := range manual(t) {
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			seen++
			_, err := config.Parse(page, []byte(m[1]))
			if err == nil {
				continue
			}
			if !strings.Contains(m[1], "sites:") {
				indented := regexp.MustCompile(`(?m)^`).ReplaceAllString(m[1], "    ")
				if _, again := config.Parse(page, []byte("sites:\n  - host: example.com\n"+indented)); again == nil {
					continue
				}
			}
			t.Errorf("%s: %v\n%s", page, err, m[1])
		}
	}
	if seen < 10 {
		t.Errorf("only %d configurations were seen", seen)
	}
}

// What the manual tells to put into Redis's file of users is what Merlon needs.
func TestRightsInDocs(t *testing.T) {
	const page = "docs/traffic.md"
	if line := "\nuser merlon on >PASSWORD resetchannels " + gateway.RedisRights + "\n"; !strings.Contains(manual(t)[page], line) {
		t.Errorf("%s: the line must be%s", page, line)
	}
}

// manual returns the pages that people read.
func manual(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"docs/*.md", "*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range found {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			pages[page] = string(text)
		}
	}
	return pages
}

func goFolders(t *testing.T) map[string][]*ast.File {
	t.Helper()
	folders := map[string][]*ast.File{}
	err := filepath.WalkDir(".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "testdata" || p != "." && strings.HasPrefix(e.Name(), ".")):
			return filepath.SkipDir
		case strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go"):
			f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			folders[filepath.Dir(p)] = append(folders[filepath.Dir(p)], f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return folders
}

// undocumented lists exported names of a declaration without a comment. What
// satisfies a well-known interface needs none.
func undocumented(d ast.Decl) []string {
	var names []string
	switch d := d.(type) {
	case *ast.FuncDecl:
		wellKnown := d.Recv != nil && strings.Contains(" String Error Read Write Close Unwrap LogValue GoString Format MarshalText UnmarshalText MarshalJSON UnmarshalJSON UnmarshalYAML MarshalYAML Name ServeHTTP ", " "+d.Name.Name+" ")
		if d.Name.IsExported() && exportedReceiver(d) && d.Doc.Text() == "" && !wellKnown {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc.Text() == "" && s.Doc.Text() == "" && s.Comment.Text() == "" {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc.Text() == "" && s.Doc.Text() == "" && s.Comment.Text() == "" {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	id, ok := typ.(*ast.Ident)
	return !ok || id.IsExported()
}
