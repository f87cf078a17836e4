package body_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// order is a document of about 1 kB and 54 values.
func order() string {
	var items []string
	for i := range 6 {
		items = append(items, fmt.Sprintf(`{"sku": "CH-%d-OAK", "name": "Chair number %d \u2013 oak", "quantity": %d, "price": %d.50, "tags": ["wood", "indoor"], "gift": false}`, 1000+i, i, i+1, 80+i))
	}
	return `{"customer": {"id": 48213, "name": "Ada Example", "email": "ada@example.com"}, "address": {"street": "12 High Street", "city": "Leeds", "zip": "LS1 4AP"}, "items": [` +
		strings.Join(items, ", ") + `], "note": "please ring twice", "total": 497.50}`
}

func fields(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("field%d=some+value+%d", i, i))
	}
	return strings.Join(list, "&")
}

func BenchmarkParse(b *testing.B) {
	upload := strings.Replace(good, "--b0undary--", "--b0undary\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"cat.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n"+
		strings.Repeat("x", 1000)+"\r\n--b0undary--", 1)
	for _, c := range []struct{ name, contentType, text string }{
		{"JSON 1 kB", "application/json", order()},
		{"form 500 B", "application/x-www-form-urlencoded", fields(20)},
		{"form 500 B without escapes", "application/x-www-form-urlencoded", strings.ReplaceAll(fields(20), "+", "-")},
		{"multipart 1.2 kB", "multipart/form-data; boundary=b0undary", upload},
		{"text 1 MiB", "text/plain", strings.Repeat("lorem ipsum ", 80_000)},
		{"JSON of one string of 1 MiB", "application/json", `"` + strings.Repeat("lorem ipsum, ", 80_000) + `"`},
		{"JSON that nests 500 deep", "application/json", strings.Repeat(`{"":`, 500) + `"` + strings.Repeat("x", 500_000) + `"` + strings.Repeat("}", 500)},
		{"multipart of 1000 parts", "multipart/form-data; boundary=b0undary", strings.Repeat(strings.TrimSuffix(good, "--b0undary--\r\n"), 1000) + "--b0undary--\r\n"},
		{"XML 300 B", "text/xml", `<?xml version="1.0"?><order id="7">` + strings.Repeat(`<item sku="x">chair</item>`, 10) + `</order>`},
	} {
		list := types(b)
		text := []byte(c.text)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				k, boundary, err := list.Kind(c.contentType)
				if err != nil {
					b.Fatal(err)
				}
				m := message.Body{Kind: k}
				if err := body.Parse(&m, text, body.Options{Boundary: boundary, Limit: 1 << 20, Most: 1000, RefuseDoctype: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
