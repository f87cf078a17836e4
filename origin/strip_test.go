package origin

import (
	"net/http"
	"strings"
	"testing"
)

// TestIdentityNames: no name of the lists gets by for how it is written.
func TestIdentityNames(t *testing.T) {
	names := append([]string{}, identityPrefixes[:]...)
	for i := range names {
		names[i] += "x"
	}
	for name := range identityNames {
		names = append(names, name)
	}
	if len(names) < 100 {
		t.Fatalf("only %d names", len(names))
	}
	for _, name := range names {
		upper := strings.ToUpper(name)
		for _, written := range []string{name, upper, http.CanonicalHeaderKey(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(upper, "-", "_")} {
			if !isIdentity(written) {
				t.Errorf("%s is let through", written)
			}
		}
	}
	for _, name := range []string{"", "x", "-", "Sec-Fetch-Site", "Referer", "User-Agent", "X-Requested-With"} {
		if isIdentity(name) {
			t.Errorf("%q is removed", name)
		}
	}
}
