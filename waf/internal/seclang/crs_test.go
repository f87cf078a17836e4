package seclang_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corazawaf/coraza-coreruleset/v4"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// files are the embedded rules of the CRS, and others by name.
type files map[string]string

func (f files) ReadFile(name string) ([]byte, error) {
	if text, ok := f[name]; ok {
		return []byte(text), nil
	}
	if !strings.HasPrefix(name, "@") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return fs.ReadFile(coreruleset.FS, name)
}

func (f files) Glob(pattern string) ([]string, error) {
	var out []string
	for name := range f {
		ok, err := filepath.Match(pattern, name)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, name)
		}
	}
	if strings.HasPrefix(pattern, "@") {
		return fs.Glob(coreruleset.FS, pattern)
	}
	return out, nil
}

const crs = "Include @coraza.conf-recommended\nInclude @crs-setup.conf.example\nInclude @owasp_crs/*.conf\n"

func TestCRS(t *testing.T) {
	rs, err := seclang.Parse(files{}, seclang.Source{Name: "all", Text: crs})
	if err != nil {
		t.Fatal(err)
	}
	var n [6]int
	for _, r := range rs.Rules {
		n[r.Phase]++
	}
	t.Log(n)
	_ = errors.Is
}
