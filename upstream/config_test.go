package upstream_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/merlon-dev/merlon/upstream"
)

type site struct {
	Host     string          `yaml:"host"`
	Upstream upstream.Config `yaml:"upstream"`
}

func TestYAMLForms(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"upstream: http://127.0.0.1:3000", []string{"http://127.0.0.1:3000"}},
		{"upstream: [https://a, https://b]", []string{"https://a", "https://b"}},
		{"upstream:\n  to: [https://a]\n  timeouts: {dial: 3s}", []string{"https://a"}},
	} {
		var s site
		if err := yaml.UnmarshalWithOptions([]byte(c.text), &s, yaml.Strict()); err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
		if !reflect.DeepEqual(s.Upstream.To, c.want) {
			t.Errorf("%s: %q", c.text, s.Upstream.To)
		}
		if strings.Contains(c.text, "dial") && s.Upstream.Timeouts.Dial != 3*time.Second {
			t.Errorf("dial: %v", s.Upstream.Timeouts.Dial)
		}
	}
}

func TestYAMLStaysStrict(t *testing.T) {
	for text, want := range map[string]string{
		"host: a\nupstream:\n  to: [https://a]\n  strip_prefx: /api":           `[4:3] unknown field "strip_prefx"`,
		"host: a\nupstream:\n  to: [https://a]\n  tls:\n    verify: false":     `[5:5] unknown field "verify"`,
		"host: a\nupstream:\n  to: [https://a]\n  health: {path: /, evry: 5s}": `unknown field "evry"`,
		"host: a\nupstream:\n  to: [https://a]\n  timeouts: {dial: soon}":      `invalid duration "soon"`,
		"host: a\nupstream:\n  to: {a: b}":                                     "[3:",
	} {
		var s site
		err := yaml.UnmarshalWithOptions([]byte(text), &s, yaml.Strict())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n: %v, want %s", text, err, want)
		}
	}
}

func TestEveryMistakeAtOnce(t *testing.T) {
	c := upstream.Config{
		To:          []string{"http://10.0.0.5:3000", "ftp://a", "https://u:secret@a", "https://a/path", "unix:relative", "https://b", "https://b", "http://a:99999"},
		StripPrefix: "api/", AddPrefix: "/../x", Host: "a b",
		TLS:               upstream.TLS{CA: "/nonexistent/ca.pem", Cert: "/nonexistent/c.pem", Pins: []string{"md5/x"}, MinVersion: "1.1", ServerName: "a:443"},
		Health:            &upstream.Health{Path: "x", Status: []int{99}, Interval: time.Nanosecond, Timeout: time.Hour, UnhealthyAfter: -1},
		Sticky:            &upstream.Sticky{Cookie: "session"},
		Timeouts:          upstream.Timeouts{Dial: -1, Stall: 48 * time.Hour},
		MaxInFlight:       -1,
		MaxResponseHeader: 1,
	}
	_, err := upstream.New(c)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`to[0] "http://10.0.0.5:3000": must be https`, "to[1]", "to[2]", "to[3]", "to[4]", "to[6]", "to[7]", "strip_prefix", "add_prefix", "host ",
		"tls.ca", "tls.cert", "tls.pins[0]", "tls.min_version", "tls.server_name", "health.path", "health.status[0]", "health.interval", "health.timeout",
		"health.unhealthy_after", "sticky.cookie", "timeouts.dial", "timeouts.stall", "max_in_flight", "max_response_header"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported", want)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the password is repeated: %v", err)
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 25 {
		t.Errorf("%d mistakes: %v", n, err)
	}
}

func TestCleartextStaysOnThisMachine(t *testing.T) {
	for to, ok := range map[string]bool{
		"http://127.0.0.1:3000": true, "http://127.9.9.9": true, "http://[::1]:80": true, "http://localhost:3000": true, "h2c://127.0.0.1:50051": true,
		"unix:/run/app.sock": true, "h2c+unix:/run/app.sock": true, "https://10.0.0.5:8443": true,
		"http://10.0.0.5": false, "http://app:3000": false, "http://0.0.0.0:3000": false, "http://localhost.evil.example": false,
		"h2c://10.0.0.5:1": false, "http://[::ffff:10.0.0.5]": false, "http://127.0.0.1.nip.io": false, "http://2130706433": false,
	} {
		_, err := upstream.New(upstream.Config{To: []string{to}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", to, err)
		}
		c := upstream.Config{To: []string{to}, InsecureCleartext: true}
		if _, err := upstream.New(c); err != nil {
			t.Errorf("%s with insecure_cleartext: %v", to, err)
		}
		if (len(c.Weak()) > 0) == ok {
			t.Errorf("%s: weak: %v", to, c.Weak())
		}
	}
}

func TestMistakesAreWhereTheyWereWritten(t *testing.T) {
	for text, want := range map[string]string{
		"upstream: http://app:3000":             ` "http://app:3000": `,
		"upstream: [https://a, http://b]":       `[1] "http://b": `,
		"upstream: {to: [https://a, http://b]}": `to[1] "http://b": `,
	} {
		var s site
		if err := yaml.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		if _, err := upstream.New(s.Upstream); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := upstream.New(upstream.Config{}); err == nil || !strings.Contains(err.Error(), "to: must name") {
		t.Error(err)
	}
}
