package waf_test

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/waf"
)

const chrome = `User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-GB,en;q=0.9
Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; seen=1
Referer: https://shop.example.com/
Sec-Ch-Ua: "Chromium";v="149", "Not.A/Brand";v="24"
Sec-Fetch-Dest: document
Sec-Fetch-Mode: navigate
Sec-Fetch-Site: same-origin
Upgrade-Insecure-Requests: 1
`

func jsonOf(size int) string {
	var items []string
	for i := 0; len(strings.Join(items, ","))+30 < size; i++ {
		items = append(items, fmt.Sprintf(`{"id": %d, "name": "thing number %d", "price": %d.50, "tags": ["a", "b"]}`, i, i, i*7))
	}
	return `{"items": [` + strings.Join(items, ",") + `]}`
}

func formOf(size int) string {
	v := url.Values{}
	for i := 0; len(v.Encode()) < size; i++ {
		v.Set(fmt.Sprintf("field%d", i), fmt.Sprintf("some ordinary value %d", i))
	}
	return v.Encode()
}

type exchange struct{ name, wire, body string }

var exchanges = []exchange{
	{"GET", "GET /products/chairs?page=2&sort=price&q=oak\n" + chrome, ""},
	{"JSON 1 kB", "POST /api/orders\n" + chrome + "Content-Type: application/json\n", jsonOf(1000)},
	{"form 600 B", "POST /checkout\n" + chrome + "Content-Type: application/x-www-form-urlencoded\n", formOf(600)},
	{"SQLi GET", "GET /products?q=" + url.QueryEscape("x' UNION SELECT name, password FROM users -- ") + "\n" + chrome, ""},
	{"multipart", "POST /upload\n" + chrome + "Content-Type: " + formType + "\n", field("caption", "my cat") + file("photo", "cat.jpg", strings.Repeat("x", 800)) + endOfForm},
}

func BenchmarkCheck(b *testing.B) {
	benchmark(b, waf.New, append(exchanges,
		exchange{"worst text 1 MiB", "POST /api\n" + chrome + "Content-Type: application/json\n", `"` + strings.Repeat("lorem ipsum ", 80_000) + `"`},
		exchange{"worst JSON 1000 values", "POST /api\n" + chrome + "Content-Type: application/json\n", "[" + strings.Repeat(`"a value here",`, 998) + "1]"},
	))
}

// What a request costs beside its judgement.
func BenchmarkUnjudged(b *testing.B) { benchmark(b, waf.Unjudged, exchanges) }

func benchmark(b *testing.B, newGuard func(waf.Config) (*waf.Guard, error), list []exchange) {
	g, err := newGuard(waf.Config{})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range list {
		b.Run(c.name, func(b *testing.B) {
			r := merlontest.Request(b, c.wire)
			body := strings.NewReader(c.body)
			b.ReportAllocs()
			for b.Loop() {
				if c.body != "" {
					body.Reset(c.body)
					r.Request.Body, r.Request.ContentLength = io.NopCloser(body), int64(len(c.body))
				}
				g.Check(r)
				g.Done(r, merlon.Outcome{})
			}
		})
	}
}
