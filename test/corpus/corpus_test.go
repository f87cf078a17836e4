package corpus_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/merlon-dev/merlon/test/corpus"
)

func TestCRS(t *testing.T) {
	list, err := corpus.CRS()
	if err != nil {
		t.Fatal(err)
	}
	attacks, unreadable := 0, 0
	ids := map[string]bool{}
	for _, r := range list {
		if ids[r.ID] {
			t.Errorf("%s is there twice", r.ID)
		}
		ids[r.ID] = true
		if r.Attack {
			attacks++
		}
		if _, err := r.HTTP(); err != nil {
			unreadable++
		}
	}
	t.Logf("%d requests, %d with expected rules; net/http refuses %d", len(list), attacks, unreadable)
	if len(list) < 4500 || attacks < 3500 || unreadable > 100 {
		t.Errorf("%d requests, %d with expected rules, %d unreadable", len(list), attacks, unreadable)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "one.jsonl")
	line := `{"id":"a","label":"attack","category":"c","source":"s","method":"POST","path":"/x?y=1","headers":{"Content-Type":"text/plain","Accept":"*/*"},"body_b64":"AAE=","payload":"p","position":"form","rule_id":7}` + "\n"
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := corpus.Load(path)
	if err != nil || len(list) != 1 {
		t.Fatal(len(list), err)
	}
	r := list[0]
	if !r.Attack || r.Rule != 7 || string(r.Body) != "\x00\x01" || r.Header[0].Name != "Accept" {
		t.Errorf("%+v", r)
	}
	hr, err := r.HTTP()
	if err != nil || hr.Method != http.MethodPost || hr.ContentLength != 2 || hr.Host != "localhost" {
		t.Errorf("%+v %v", hr, err)
	}
}
