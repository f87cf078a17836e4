package lifecycle_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

// amount is how much is sent in one body: 512 MiB, or 2 GiB if MERLON_FULL is set.
func amount() int64 {
	if os.Getenv("MERLON_FULL") != "" {
		return 2 << 30
	}
	return 512 << 20
}

const bound = 64 << 20 // by which the memory may grow beyond what it is at rest

// endless gives one block of bytes again and again.
type endless struct {
	block []byte
	at    int
}

func newEndless() *endless {
	e := &endless{block: make([]byte, 256<<10+1)}
	for i := range e.block {
		e.block[i] = byte(i*i>>3 ^ i)
	}
	return e
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.block[e.at:])
	e.at = (e.at + n) % len(e.block)
	return n, nil
}

// Bodies of gigabytes pass both ways with every guard on, in bounded memory.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	size := amount()
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" && r.URL.Path == "/download" {
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = io.CopyN(w, newEndless(), size)
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	})
	m := harness.Serve(t, harness.Options{}, "-c", configure(t, "sites:\n  - host: localhost\n    upstream: "+b.URL+"\n"))

	head := "--limit\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nholiday\r\n" +
		"--limit\r\nContent-Disposition: form-data; name=\"file\"; filename=\"film.mp4\"\r\nContent-Type: video/mp4\r\n\r\n"
	const tail = "\r\n--limit--\r\n"
	rows := []struct {
		name, contentType, head, tail string
		h2                            bool
	}{
		{"octet-stream", "application/octet-stream", "", "", false},
		{"octet-stream over HTTP/2", "application/octet-stream", "", "", true},
		{"multipart", "multipart/form-data; boundary=limit", head, tail, false},
	}
	send := func(t *testing.T, c *http.Client, contentType, head, tail string, n int64) {
		t.Helper()
		r := request(t, "POST", url(m, "/upload"), io.MultiReader(strings.NewReader(head), io.LimitReader(newEndless(), n), strings.NewReader(tail)))
		r.ContentLength = int64(len(head)) + n + int64(len(tail))
		r.Header.Set("Content-Type", contentType)
		res, body := do(t, c, r)
		if want := fmt.Sprint(r.ContentLength, nil); res.StatusCode != 200 || body != want {
			t.Errorf("%d: the backend received %s, want %s", res.StatusCode, body, want)
		}
	}
	first := client(t, m, false)
	send(t, first, "application/octet-stream", "", "", 1<<20) // what is used ever after is there now
	first.CloseIdleConnections()
	rest := m.RSS(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := client(t, m, row.h2)
			c.Timeout = 10 * time.Minute
			w := watchMemory(t, m, rest)
			send(t, c, row.contentType, row.head, row.tail, size)
			w.end(t, size)
			c.CloseIdleConnections()
		})
	}
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("download, HTTP/2 %v", h2), func(t *testing.T) {
			c := client(t, m, h2)
			c.Timeout = 10 * time.Minute
			w := watchMemory(t, m, rest)
			res, err := c.Get(url(m, "/download"))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if n, err := io.Copy(io.Discard, res.Body); err != nil || n != size || res.StatusCode != 200 {
				t.Errorf("%d, %d bytes, %v", res.StatusCode, n, err)
			}
			w.end(t, size)
			c.CloseIdleConnections()
		})
	}
	verified(t, m)
	if list := events(t, m, "--kind", "refusal"); len(list) > 0 {
		t.Errorf("refused: %+v", list)
	}
}

// A watch looks at a gateway's memory until it ends.
type watch struct {
	rest, most int64
	began      time.Time
	stop, done chan struct{}
}

func watchMemory(t *testing.T, m *harness.Merlon, rest int64) *watch {
	w := &watch{rest: rest, most: m.RSS(t), began: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(20 * time.Millisecond):
				w.most = max(w.most, m.RSS(t))
			}
		}
	}()
	return w
}

func (w *watch) end(t *testing.T, size int64) {
	t.Helper()
	close(w.stop)
	<-w.done
	took := time.Since(w.began)
	t.Logf("%d MiB in %v; RSS at rest %d MiB, at most %d MiB", size>>20, took.Round(time.Millisecond), w.rest>>20, w.most>>20)
	if w.most-w.rest > bound {
		t.Errorf("the memory grew by %d MiB, beyond %d MiB", (w.most-w.rest)>>20, bound>>20)
	}
}
