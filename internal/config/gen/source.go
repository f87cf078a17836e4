package main

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/merlon-dev/merlon"

// A source is what the module's packages say about themselves.
type source struct {
	fields map[string]string // "pkgpath.Type.Field" → comment
	types  map[string]string // "pkgpath.Type" → comment
	consts []reason
}

type reason struct {
	guard, word, text string
}

func parseModule(root string) (*source, error) {
	s := &source{fields: map[string]string{}, types: map[string]string{}}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "testdata" || p != root && strings.HasPrefix(e.Name(), ".")):
			return filepath.SkipDir
		case !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		s.file(filepath.ToSlash(rel), f)
		return nil
	})
	return s, err
}

func (s *source) file(dir string, f *ast.File) {
	pkg := module
	if dir != "." {
		pkg += "/" + dir
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				s.typ(pkg, spec, cmp.Or(spec.Doc.Text(), g.Doc.Text()))
			case *ast.ValueSpec:
				if g.Tok == token.CONST {
					s.constant(dir, spec, g)
				}
			}
		}
	}
}

func (s *source) typ(pkg string, spec *ast.TypeSpec, doc string) {
	name := pkg + "." + spec.Name.Name
	s.types[name] = doc
	st, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range st.Fields.List {
		for _, n := range f.Names {
			s.fields[name+"."+n.Name] = cmp.Or(f.Doc.Text(), f.Comment.Text())
		}
	}
}

// constant notes constants of type merlon.Reason.
func (s *source) constant(dir string, spec *ast.ValueSpec, g *ast.GenDecl) {
	typ := ""
	switch t := spec.Type.(type) {
	case *ast.SelectorExpr:
		typ = t.Sel.Name
	case *ast.Ident:
		typ = t.Name
	}
	if typ != "Reason" || len(spec.Values) != 1 || !spec.Names[0].IsExported() {
		return
	}
	lit, ok := spec.Values[0].(*ast.BasicLit)
	if !ok {
		return
	}
	word, err := strconv.Unquote(lit.Value)
	if err != nil {
		return
	}
	doc := cmp.Or(spec.Doc.Text(), spec.Comment.Text())
	if doc == "" && len(g.Specs) == 1 {
		doc = g.Doc.Text()
	}
	_, text, ok := strings.Cut(doc, ": ")
	if !ok {
		text = doc
	}
	guard := path.Base(dir)
	if dir == "." {
		guard = ""
	}
	s.consts = append(s.consts, reason{guard, word, oneLine(text)})
}

func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func (s *source) reasons() (texts map[string]string, page []byte) {
	texts = map[string]string{}
	slices.SortFunc(s.consts, func(a, b reason) int {
		return cmp.Or(cmp.Compare(a.guard, b.guard), cmp.Compare(a.word, b.word))
	})
	var b bytes.Buffer
	b.WriteString("# Reasons\n\nEvery guard gives one of these reasons. Events, metrics, `merlon why` and tests use the same\nwords, and a word never changes its meaning. This page is generated from the code.\n")
	guard := "-"
	for _, r := range s.consts {
		texts[r.guard+"/"+r.word] = r.text
		if r.guard != guard {
			guard = r.guard
			title := guard
			if title == "" {
				title = "any guard"
			}
			fmt.Fprintf(&b, "\n## %s\n\n| reason | what it means |\n|---|---|\n", title)
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", r.word, strings.ReplaceAll(r.text, "|", "\\|"))
	}
	return texts, b.Bytes()
}
