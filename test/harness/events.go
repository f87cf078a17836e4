package harness

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
)

// Events returns what `merlon events` tells of the events that match, once there
// are at least some: an event reaches the disk a moment after the answer.
func (m *Merlon) Events(t testing.TB, some int, match func(ledger.Event) bool) []ledger.Event {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, code := m.Run(t, "events", "-o", "json", "--limit", "0")
		if code != 0 {
			t.Fatalf("merlon events: exit code %d", code)
		}
		var found []ledger.Event
		for line := range strings.Lines(out) {
			var e ledger.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			if match(e) {
				found = append(found, e)
			}
		}
		if len(found) >= some {
			return found
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d events in the log:\n%s", len(found), some, out)
		}
	}
}

// Reason matches the events with that reason.
func Reason(r string) func(ledger.Event) bool {
	return func(e ledger.Event) bool { return string(e.Reason) == r }
}
