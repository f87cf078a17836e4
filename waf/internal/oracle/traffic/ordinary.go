package traffic

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Ordinary is a request as ordinary clients send them; no two are the same.
func Ordinary(r *rand.Rand) *message.Request {
	switch r.IntN(5) {
	case 0, 1:
		return ordinaryGet(r)
	case 2:
		return ordinaryForm(r)
	case 3:
		return ordinaryJSON(r)
	}
	return ordinaryUpload(r)
}

func ordinaryGet(r *rand.Rand) *message.Request {
	m := ordinary(r, "GET", "/"+path(r))
	if q := ordinaryFields(r, r.IntN(5)); len(q) > 0 {
		m.URI += "?" + encode(q)
	}
	return m
}

func ordinaryForm(r *rand.Rand) *message.Request {
	m := ordinary(r, "POST", "/"+path(r))
	m.Body.Args = ordinaryFields(r, 3+r.IntN(8))
	m.Body.Text = encode(m.Body.Args)
	m.Body.Kind = message.Form
	set(m, "Content-Type", "application/x-www-form-urlencoded")
	set(m, "Content-Length", strconv.Itoa(len(m.Body.Text)))
	return m
}

func ordinaryJSON(r *rand.Rand) *message.Request {
	m := ordinary(r, choose(r, "POST", "PUT", "PATCH"), "/api/"+path(r))
	m.Body.Kind = message.JSON
	for i, f := range ordinaryFields(r, 3+r.IntN(20)) {
		m.Body.Args = append(m.Body.Args, message.Pair{Name: fmt.Sprintf("json.items.%d.%s", i/4, f.Name), Value: f.Value})
	}
	set(m, "Accept", "application/json")
	set(m, "Content-Type", "application/json")
	set(m, "Content-Length", strconv.Itoa(30*len(m.Body.Args)))
	set(m, "X-Requested-With", "XMLHttpRequest")
	return m
}

func ordinaryUpload(r *rand.Rand) *message.Request {
	m := ordinary(r, "POST", "/"+path(r))
	m.Body.Kind = message.Multipart
	for _, f := range ordinaryFields(r, 1+r.IntN(4)) {
		m.Body.Args = append(m.Body.Args, f)
		m.Body.Parts = append(m.Body.Parts, message.Part{
			Name: f.Name, Size: int64(len(f.Value)),
			Header: []message.Pair{{Name: "Content-Disposition", Value: `form-data; name="` + f.Name + `"`}},
		})
	}
	name := choose(r, words...) + strconv.Itoa(r.IntN(10000)) + choose(r, ".png", ".pdf", ".jpg", ".txt", ".docx")
	m.Body.Parts = append(m.Body.Parts, message.Part{
		Name: "upload", File: true, FileNames: []string{name}, Size: int64(r.IntN(1 << 20)),
		Header: []message.Pair{{Name: "Content-Disposition", Value: `form-data; name="upload"; filename="` + name + `"`}, {Name: "Content-Type", Value: "image/png"}},
	})
	set(m, "Content-Type", fmt.Sprintf("multipart/form-data; boundary=----WebKitFormBoundary%016x", r.Uint64()))
	set(m, "Content-Length", strconv.Itoa(1000+r.IntN(1<<20)))
	return m
}

func ordinary(r *rand.Rand, method, uri string) *message.Request {
	m := browser(method, uri)
	set(m, "Cookie", fmt.Sprintf("session=%016x%016x; theme=dark; visits=%d", r.Uint64(), r.Uint64(), r.IntN(1000)))
	set(m, "Referer", "https://shop.example.com/"+path(r))
	if r.IntN(3) == 0 {
		set(m, "X-Request-Id", fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Int64N(1<<48)))
	}
	if r.IntN(4) == 0 {
		set(m, "Authorization", fmt.Sprintf("Bearer %016x.%016x%016x.%016x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()))
	}
	return m
}

func path(r *rand.Rand) string {
	var list []string
	for range 1 + r.IntN(3) {
		list = append(list, choose(r, words...))
	}
	return strings.Join(append(list, strconv.Itoa(r.IntN(100000))), "/")
}

func ordinaryFields(r *rand.Rand, n int) []message.Pair {
	var list []message.Pair
	for i := range n {
		list = append(list, message.Pair{Name: choose(r, names...) + strconv.Itoa(i), Value: value(r)})
	}
	return list
}

func encode(list []message.Pair) string {
	var fields []string
	for _, f := range list {
		fields = append(fields, url.QueryEscape(f.Name)+"="+url.QueryEscape(f.Value))
	}
	return strings.Join(fields, "&")
}

func value(r *rand.Rand) string {
	switch r.IntN(8) {
	case 0:
		return fmt.Sprintf("%016x", r.Uint64())
	case 1:
		return strconv.Itoa(r.IntN(1 << 30))
	case 2:
		return choose(r, words...) + "." + choose(r, words...) + strconv.Itoa(r.IntN(100)) + "@example.com"
	case 3:
		return fmt.Sprintf("%d.%02d", r.IntN(1000), r.IntN(100))
	case 4:
		return fmt.Sprintf("2026-%02d-%02dT%02d:%02d:00Z", 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60))
	case 5:
		return "https://example.com/" + path(r) + "?" + choose(r, names...) + "=" + strconv.Itoa(r.IntN(1000))
	}
	return Prose(r, 1+r.IntN(25))
}

// Prose is text of words and what stands between them.
func Prose(r *rand.Rand, n int) string {
	var b strings.Builder
	for range n {
		b.WriteString(choose(r, words...))
		b.WriteString(choose(r, " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", ", ", ", ", ". ", ". ", " - ", ": ", "'s ", "! ", "? ", "\n"))
	}
	return b.String()
}

func choose(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

var names = strings.Fields("q page sort id name email comment address city note title color size quantity token lang filter category price date")

var words = strings.Fields(`the order and shipping of a new table for our kitchen was late so I would like to select another color from the list or
	have it replaced by one that fits into where we live please update my address since the union of both houses drop me a line if there is
	anything else between now and Monday because my wife will insert coins into the old machine while cats sleep in the window of that
	café naïve über größer señor 日本 привет group by hand create user value path home shop cart checkout product image report summary news`)
