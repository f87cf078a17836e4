package traffic_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/merlon-dev/merlon"
)

// streams is how many requests one connection has open in these tests, fewer
// than max_streams.
const streams = 100

// An h2 is a connection of a client that does as it likes.
type h2 struct {
	*http2.Framer
	conn *tls.Conn
}

func dialH2(t *testing.T, p *place, settings ...http2.Setting) *h2 {
	t.Helper()
	conn, err := tls.Dial("tcp", p.HTTPS, &tls.Config{RootCAs: p.CA(t), ServerName: "localhost", NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &h2{http2.NewFramer(conn, conn), conn}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return c
}

// open opens streams that ask for the same.
func (c *h2) open(t *testing.T, end bool, fields ...string) {
	t.Helper()
	for i := range uint32(streams) {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		enc.SetMaxDynamicTableSize(0)
		for f := range slices.Chunk(append([]string{":scheme", "https", ":authority", "localhost"}, fields...), 2) {
			if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
			t.Fatal(err)
		}
	}
}

// ended reads until as many streams are over as were opened, or the connection
// is, and returns how many streams were answered or reset.
func (c *h2) ended(t *testing.T) (over int) {
	t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(2 * soon)); err != nil {
		t.Fatal(err)
	}
	for over < streams {
		f, err := c.ReadFrame()
		var late interface{ Timeout() bool }
		if errors.As(err, &late) && late.Timeout() {
			t.Errorf("after %v only %d of %d streams have ended", 2*soon, over, streams)
			return over
		}
		if err != nil {
			return streams // the whole connection
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			over++
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				over++
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				over++
			}
		case *http2.GoAwayFrame:
			return streams
		}
	}
	return over
}

// What a client does with the streams and frames of one connection costs the
// gateway little memory, and others nothing: CVE-2019-9511 to 9518 and slow
// clients. Rapid reset and endless headers are in test/protocol.
func TestHostileStreams(t *testing.T) {
	t.Parallel()
	const grows = 96 << 20 // on a busy machine the collector is late
	var asked atomic.Int64
	// A write of 32 KiB has the time that it takes at min_rate.
	p := serve(t, "slow_grace: 1s\nmin_rate: 16KiB\noff: [waf]\nsites: [{host: localhost, upstream: BACKEND}]\n", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/16MiB" {
			hello(w, r)
			return
		}
		asked.Add(1)
		w.Header().Set("Content-Type", "application/octet-stream")
		for range 16 << 10 {
			_, _ = w.Write(make([]byte, merlon.KiB)) // until the gateway hangs up
		}
	})
	other := p.from("127.0.0.2")
	other.get("/").want(t, "before", 200)
	// many frames are sent at once, and their answers are not read.
	many := func(write func(f *http2.Framer)) func(*testing.T, *h2) {
		return func(_ *testing.T, c *h2) {
			var flood bytes.Buffer
			f := http2.NewFramer(&flood, nil)
			for range 50_000 {
				write(f)
			}
			_ = c.conn.SetWriteDeadline(time.Now().Add(soon))
			_, _ = c.conn.Write(flood.Bytes()) // fails when the gateway hangs up
		}
	}
	for _, c := range []struct {
		name     string
		settings []http2.Setting
		attack   func(*testing.T, *h2)
	}{
		{"answers that there is no room for", []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(t *testing.T, c *h2) {
			c.open(t, true, ":method", "GET", ":path", "/16MiB")
			c.ended(t)
		}},
		{"answers that are taken byte by byte", []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1}}, func(t *testing.T, c *h2) {
			c.open(t, true, ":method", "GET", ":path", "/16MiB")
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for i := uint32(0); ; i++ {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond): // two a second for each stream
						_ = c.WriteWindowUpdate(2*(i%streams)+1, 1)
					}
				}
			}()
			c.ended(t)
		}},
		{"bodies that do not come", nil, func(t *testing.T, c *h2) {
			c.open(t, false, ":method", "POST", ":path", "/", "content-type", "application/json", "content-length", "1000")
			c.ended(t)
		}},
		{"pings", nil, many(func(f *http2.Framer) { _ = f.WritePing(false, [8]byte{}) })},
		{"settings", nil, many(func(f *http2.Framer) { _ = f.WriteSettings() })},
		{"empty pieces of a body", nil, func(t *testing.T, c *h2) {
			c.open(t, false, ":method", "POST", ":path", "/", "content-type", "application/octet-stream")
			many(func(f *http2.Framer) { _ = f.WriteData(1, false, nil) })(t, c)
		}},
		{"priorities", nil, many(func(f *http2.Framer) { _ = f.WritePriority(1, http2.PriorityParam{StreamDep: 3, Weight: 7}) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.t = t
			before := p.RSS(t)
			began := time.Now()
			c.attack(t, dialH2(t, p, c.settings...))
			took := time.Since(began)
			for range 10 {
				if got := other.get("/"); got.Status != 200 || got.Took > 5*time.Second {
					t.Errorf("another client: %d after %v", got.Status, got.Took)
				}
			}
			most := p.RSS(t)
			t.Logf("%v; RSS %d MiB before, %d MiB after", took.Round(time.Millisecond), before>>20, most>>20)
			if most > before+grows {
				t.Errorf("the memory grew by %d MiB", (most-before)>>20)
			}
		})
	}
	if n := asked.Load(); n != 2*streams {
		t.Errorf("the backend was asked %d times, so the attack was another", n)
	}
}
