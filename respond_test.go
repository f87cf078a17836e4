package merlon

import (
	"strings"
	"testing"
)

// A page that was made in advance is the page that the template makes.
func TestRefusalPages(t *testing.T) {
	const id = `X<b>&"'`
	if len(refusalPages) < 30 {
		t.Errorf("only %d pages", len(refusalPages))
	}
	for _, status := range []int{400, 403, 404, 413, 429, 499, 500, 502, 503, 504, 599} {
		got := refusalPageOf(status, id)
		if got != refusalText(status, id) {
			t.Errorf("%d: another page", status)
		}
		if !strings.Contains(got, "X&lt;b&gt;") || strings.Contains(got, idPlace) {
			t.Errorf("%d: the id is not in it", status)
		}
	}
}
