package demo_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/test/harness"
)

// What a stranger runs first: every attack gets through to the bare shop, none
// that has its guard gets through to the one behind Merlon, and every
// legitimate use works at both.
func TestDemoAttack(t *testing.T) {
	cmd := exec.Command(harness.Binary(t), "demo", "--attack", "-o", "json", "--bare", "127.0.0.1:0", "--https", "127.0.0.1:0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	type shot struct{ Worked bool }
	type result struct{ Attack, Twin shot }
	var report struct {
		Attacks []struct {
			Name        string
			NotYet      string `json:"not_yet"`
			StoppedBy   string `json:"stopped_by"`
			Bare, Gated result
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	mustStop := map[string]string{
		"log-in-sql": "waf", "search-union": "waf", "stored-xss": "waf", "reflected-xss": "waf",
		"command": "waf", "metadata": "waf", "form-csrf": "csrf",
	}
	for _, a := range report.Attacks {
		if !a.Bare.Attack.Worked || !a.Bare.Twin.Worked || !a.Gated.Twin.Worked {
			t.Errorf("%s: bare attack %v, twins %v and %v", a.Name, a.Bare.Attack.Worked, a.Bare.Twin.Worked, a.Gated.Twin.Worked)
		}
		guard, must := mustStop[a.Name]
		if must && (a.Gated.Attack.Worked || a.NotYet != "" || !strings.HasPrefix(a.StoppedBy, guard+":")) {
			t.Errorf("%s must be stopped by %s: got through %v, stopped by %q", a.Name, guard, a.Gated.Attack.Worked, a.StoppedBy)
		}
		if a.NotYet == "" && a.Gated.Attack.Worked {
			t.Errorf("%s gets through", a.Name)
		}
		delete(mustStop, a.Name)
	}
	if len(mustStop) > 0 {
		t.Errorf("not tried: %v", mustStop)
	}
}

func TestMain(m *testing.M) {
	defer harness.Cleanup()
	m.Run()
}
