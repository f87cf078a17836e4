// Command gen writes what is generated from the code: the JSON Schema of
// merlon.yaml, the pages of settings and of reasons, and the texts that
// `merlon why` quotes. With -check it changes nothing and fails if a file is
// not what it would write.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	check := flag.Bool("check", false, "only say whether the files are current")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	src, err := parseModule(root)
	if err != nil {
		return err
	}
	schema, page := settings(src)
	schemaText, err := indent(schema)
	if err != nil {
		return err
	}
	texts, reasonsPage := src.reasons()
	reasonsText, err := indent(texts)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path string
		text []byte
	}{
		{"internal/config/schema.json", schemaText},
		{"internal/config/reasons.json", reasonsText},
		{"docs/configuration.md", page},
		{"docs/reasons.md", reasonsPage},
	} {
		path := filepath.Join(root, f.path)
		if check {
			have, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(have, f.text) {
				return fmt.Errorf("%s is not current: run make docs", f.path)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func indent(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above the working folder")
		}
		dir = up
	}
}
