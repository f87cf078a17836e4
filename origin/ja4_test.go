package origin_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/origin"
)

// The example of the specification (FoxIO, JA4.md), with values to be ignored
// put in between.
func TestJA4(t *testing.T) {
	chrome := tls.ClientHelloInfo{
		CipherSuites:      []uint16{0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		Extensions:        []uint16{0x1a1a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015},
		SignatureSchemes:  []tls.SignatureScheme{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
		SupportedVersions: []uint16{0x3a3a, tls.VersionTLS13, tls.VersionTLS12},
		SupportedProtos:   []string{"h2", "http/1.1"},
	}
	shuffled := chrome
	shuffled.Extensions = append([]uint16{0x0015, 0x000a}, chrome.Extensions[:15]...)
	nothing := tls.ClientHelloInfo{}
	odd := tls.ClientHelloInfo{SupportedProtos: []string{"\xab1"}, SupportedVersions: []uint16{tls.VersionTLS12}}
	for name, c := range map[string]struct {
		hello tls.ClientHelloInfo
		want  string
	}{
		"the example":                             {chrome, "t13d1516h2_8daaf6152771_e5627efa2ab1"},
		"the same with its extensions shuffled":   {shuffled, "t13d1516h2_8daaf6152771_e5627efa2ab1"},
		"a hello without anything":                {nothing, "t00i000000_000000000000_000000000000"},
		"a protocol that is no letters or digits": {odd, "t12i0000a1_000000000000_000000000000"},
	} {
		if got := origin.JA4(&c.hello); got != c.want {
			t.Errorf("%s: %s, not %s", name, got, c.want)
		}
	}
}

func TestFingerprintGoesWithEveryRequest(t *testing.T) {
	var edge *origin.Edge
	addr, client, house := secure(t, origin.EdgeConfig{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, edge.Fingerprint(r))
	}))
	edge = house.edge
	ask := func(h2 bool) string {
		res, err := client(h2).Get("https://" + addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	one, two := ask(false), ask(true)
	if !strings.HasPrefix(one, "t13i") || ask(false) != one {
		t.Errorf("HTTP/1: %q", one)
	}
	if !strings.HasPrefix(two, "t13i") || !strings.Contains(two, "h2_") || two == one {
		t.Errorf("HTTP/2: %q, HTTP/1: %q", two, one)
	}
	// A proxy's own handshake says nothing about the client.
	edge = newEdge(t, origin.EdgeConfig{TrustedProxies: []string{"127.0.0.1"}})
	if got := ask(false); got != "" {
		t.Errorf("of a proxy's client: %q", got)
	}
}
