// Package corpus loads labelled requests for tests: the regression tests that
// come with the OWASP Core Rule Set, and files of one JSON object a line.
//
// It only loads; what a request is worth is for the test to say.
package corpus

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/corazawaf/coraza-coreruleset/v4/tests"
	"github.com/goccy/go-yaml"
)

// A Field is one header field.
type Field struct{ Name, Value string }

// A Request is one labelled request.
type Request struct {
	ID       string // unique in its source; "942100-1" for a test of the CRS
	Source   string // "crs-regression", "fuzzdb", …
	Category string
	Attack   bool // labelled as an attack; of the CRS's tests: some rule is expected to match
	Rule     int  // that the request was made for; 0 if none
	Paranoia int  // level of that rule, 0 if not known

	Method string
	Path   string // the request target, query included
	Proto  string
	Header []Field // in the order of their names
	Body   []byte
	Raw    []byte // the bytes on the wire, where they are given instead of the above

	Payload  string // the decoded attack, where known
	Position string // where it stands: "query", "form", …

	Expect []int // rules of the CRS that must match
	Never  []int // rules of the CRS that must not match
}

// Wire returns the request as it stands on the wire. Host and Content-Length
// are added where they are missing.
func (r Request) Wire() []byte {
	if r.Raw != nil {
		return r.Raw
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\r\n", r.Method, r.Path, r.Proto)
	has := map[string]bool{}
	for _, f := range r.Header {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
		has[strings.ToLower(f.Name)] = true
	}
	if !has["host"] {
		b.WriteString("Host: localhost\r\n")
	}
	if len(r.Body) > 0 && !has["content-length"] && !has["transfer-encoding"] {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.Body))
	}
	b.WriteString("\r\n")
	b.Write(r.Body)
	return b.Bytes()
}

// HTTP returns the request as net/http reads it from the wire, or the error
// with which it refuses it.
func (r Request) HTTP() (*http.Request, error) {
	hr, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(r.Wire())))
	if err != nil {
		return nil, err
	}
	hr.RemoteAddr = "192.0.2.1:40000"
	return hr, nil
}

// Load reads a file of one JSON object a line.
func Load(path string) ([]Request, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	var list []Request
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		r, err := parseLine(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		list = append(list, r)
	}
	return list, lines.Err()
}

func parseLine(line []byte) (Request, error) {
	var in struct {
		ID, Label, Category, Source, Method, Path string
		Headers                                   map[string]string
		Body                                      string
		Body64                                    string `json:"body_b64"`
		Payload, Position                         string
		Rule                                      int `json:"rule_id"`
		Paranoia                                  int `json:"paranoia_level"`
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return Request{}, err
	}
	body := []byte(in.Body)
	if in.Body64 != "" {
		var err error
		if body, err = base64.StdEncoding.DecodeString(in.Body64); err != nil {
			return Request{}, err
		}
	}
	return Request{
		ID: in.ID, Source: in.Source, Category: in.Category, Attack: in.Label == "attack",
		Rule: in.Rule, Paranoia: in.Paranoia, Payload: in.Payload, Position: in.Position,
		Method: in.Method, Path: in.Path, Proto: "HTTP/1.1", Header: fields(in.Headers), Body: body,
	}, nil
}

func fields(m map[string]string) []Field {
	list := make([]Field, 0, len(m))
	for k, v := range m {
		list = append(list, Field{k, v})
	}
	slices.SortFunc(list, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// The CRS's own files of tests.
type testFile struct {
	RuleID int `yaml:"rule_id"`
	Tests  []struct {
		TestID int `yaml:"test_id"`
		Stages []struct {
			Input  testInput `yaml:"input"`
			Output struct {
				Log struct {
					Expect []int `yaml:"expect_ids"`
					Never  []int `yaml:"no_expect_ids"`
				} `yaml:"log"`
			} `yaml:"output"`
		} `yaml:"stages"`
	} `yaml:"tests"`
}

type testInput struct {
	Headers      map[string]string `yaml:"headers"`
	Method       string            `yaml:"method"`
	URI          string            `yaml:"uri"`
	Version      string            `yaml:"version"`
	Data         string            `yaml:"data"`
	Encoded      string            `yaml:"encoded_request"`
	Autocomplete *bool             `yaml:"autocomplete_headers"`
}

// CRS returns the regression tests of the embedded Core Rule Set, each stage
// as a request.
func CRS() ([]Request, error) {
	var list []Request
	err := fs.WalkDir(tests.FS, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(p, ".yaml") {
			return err
		}
		text, err := fs.ReadFile(tests.FS, p)
		if err != nil {
			return err
		}
		var f testFile
		if err := yaml.Unmarshal(text, &f); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		category, _, _ := strings.Cut(p, "/")
		for _, t := range f.Tests {
			for i, s := range t.Stages {
				r, err := s.Input.request()
				if err != nil {
					return fmt.Errorf("%s: test %d: %w", p, t.TestID, err)
				}
				r.ID = fmt.Sprintf("%d-%d", f.RuleID, t.TestID)
				if i > 0 {
					r.ID += "." + strconv.Itoa(i+1)
				}
				r.Source, r.Category, r.Rule = "crs-regression", category, f.RuleID
				r.Expect, r.Never = s.Output.Log.Expect, s.Output.Log.Never
				r.Attack = len(r.Expect) > 0
				list = append(list, r)
			}
		}
		return nil
	})
	return list, err
}

// request fills in what the CRS's test runner does.
func (in testInput) request() (Request, error) {
	if in.Encoded != "" {
		raw, err := base64.StdEncoding.DecodeString(in.Encoded)
		return Request{Raw: raw}, err
	}
	r := Request{Method: in.Method, Path: in.URI, Proto: in.Version, Header: fields(in.Headers), Body: []byte(in.Data)}
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	if r.Path == "" {
		r.Path = "/"
	}
	if r.Proto == "" {
		r.Proto = "HTTP/1.1"
	}
	typed := slices.ContainsFunc(r.Header, func(f Field) bool { return strings.EqualFold(f.Name, "Content-Type") })
	if len(r.Body) > 0 && !typed && (in.Autocomplete == nil || *in.Autocomplete) {
		r.Header = append(r.Header, Field{"Content-Type", "application/x-www-form-urlencoded"})
	}
	return r, nil
}
