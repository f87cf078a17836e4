package traffic_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

// Trap 65: many uploads that are all but complete, and kept so. What guards
// look at is held for each of them, but together no more than inspect_memory.
func TestManyBodiesHeldBack(t *testing.T) {
	t.Parallel()
	const (
		uploads = 400
		size    = 1 << 20 // each; what is looked at at most, by default
		budget  = 32 << 20
		// The garbage collector lets the heap double, a buffer that grows is there
		// twice in that moment, and there are the connections. Without a bound it
		// is three times as much.
		grows = 256 << 20
	)
	p := serve(t, "inspect_memory: 32MiB\nslow_grace: 5m\nsites: [{host: localhost, upstream: BACKEND}]\n", hello)
	ask := p.from("127.0.0.2")
	body := fmt.Sprintf(`{"note": %q}`, bytes.Repeat([]byte("lorem "), size/6-8))
	ask.send(t.Context(), "POST", "/", body, "Content-Type", "application/json").want(t, "one such upload", 200)
	before := p.RSS(t)

	config := &tls.Config{RootCAs: p.CA(t), ServerName: "localhost", NextProtos: []string{"http/1.1"}}
	conns := make([]*tls.Conn, uploads)
	refused := make(chan int, uploads)
	parallel(16, uploads, func(i int) {
		c, err := tls.Dial("tcp", p.HTTPS, config)
		if err != nil {
			t.Error(err)
			return
		}
		conns[i] = c
		head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
		_, _ = c.Write([]byte(head + body[:len(body)-1])) // may be refused midway
		go func() {
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil { // the answer came while we were sending
				refused <- 0
				return
			}
			refused <- res.StatusCode
		}()
	})
	// What is left to hold is a few at most, unless there is no bound.
	statuses := tally{}
	most, n := int64(0), 0
	for end := time.Now().Add(8 * time.Second); n < uploads-budget/size && time.Now().Before(end); {
		select {
		case status := <-refused:
			statuses.add(status)
			n++
		case <-time.After(50 * time.Millisecond):
		}
		most = max(most, p.RSS(t))
	}
	t.Logf("%d uploads of 1 MiB held back: ended %v, the others wait; RSS %d MiB before, at most %d MiB", uploads, statuses.by, before>>20, most>>20)
	if most > before+grows {
		t.Errorf("the memory grew by %d MiB, beyond %d MiB", (most-before)>>20, grows>>20)
	}
	if refusals := statuses.by[http.StatusServiceUnavailable]; refusals == 0 || refusals+statuses.by[0] != n || n < uploads-budget/size {
		t.Errorf("%d uploads were ended, %v; want %d or more, all by 503", n, statuses.by, uploads-budget/size)
	}
	ask.get("/").want(t, "what has no body, meanwhile", 200)

	// They go, and so does what was held for them.
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
		}
	}
	eventually(t, "room again", func() bool {
		return ask.send(t.Context(), "POST", "/", body, "Content-Type", "application/json").Status == 200
	})
	if e := p.Events(t, 1, harness.Reason("memory-full")); len(e) > 0 && e[0].Status != http.StatusServiceUnavailable {
		t.Errorf("%+v", e[0])
	}
}
