package protocol_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/merlon-dev/merlon/test/harness"
)

// grows is how much memory one hostile connection may cost.
const grows = 64 << 20

// Streams that are opened and reset at once (CVE-2023-44487) end the
// connection before most of them reach the backend, cost the gateway no memory
// to speak of, and other clients nothing.
func TestRapidReset(t *testing.T) {
	t.Parallel()
	var seen counted
	m := harness.Serve(t, harness.Options{}, "--upstream", backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			seen.began.Add(1)
			<-r.Context().Done()
			return
		}
		seen.ServeHTTP(w, r)
	}).URL, "--off=limit")
	client := m.Client(t)
	before := m.RSS(t)
	c := dialFrames(t, m, m.CA(t))
	ended := make(chan string, 1)
	go func() {
		for {
			f, err := c.ReadFrame()
			if err != nil {
				ended <- err.Error()
				return
			}
			if g, ok := f.(*http2.GoAwayFrame); ok {
				ended <- g.ErrCode.String()
				return
			}
		}
	}()
	// All at once, so that they come faster than any gateway can work them off.
	const streams = 20_000
	var flood bytes.Buffer
	frames := http2.NewFramer(&flood, nil)
	for i := range uint32(streams) {
		block := c.encode(":method: GET", ":scheme: https", ":path: /slow", ":authority: localhost")
		// A buffer takes everything.
		_ = frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true, EndStream: true})
		_ = frames.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
	}
	go func() { _, _ = c.conn.Write(flood.Bytes()) }() // fails when the gateway hangs up
	serves(t, client)
	select {
	case why := <-ended:
		t.Logf("ended: %s", why)
	case <-time.After(20 * time.Second):
		t.Errorf("%d streams were opened and reset, and the connection goes on", streams)
	}
	serves(t, client)
	if n := seen.began.Load(); n > streams/2 { // usually a few, up to thousands on a busy machine
		t.Errorf("%d requests began at the backend", n)
	}
	if now := m.RSS(t); now > before+grows {
		t.Errorf("memory grew from %d to %d MiB", before>>20, now>>20)
	}
}

// A header that goes on in CONTINUATION frames without end (CVE-2023-45288)
// ends the connection soon.
func TestContinuationFlood(t *testing.T) {
	t.Parallel()
	var seen counted
	m := harness.Serve(t, harness.Options{}, "--upstream", backend(t, seen.ServeHTTP).URL)
	client := m.Client(t)
	before := m.RSS(t)
	c := dialFrames(t, m, m.CA(t))
	block := c.encode(":method: GET", ":scheme: https", ":path: /", ":authority: localhost")
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	// A literal field that is not indexed, of 8 KiB: RFC 7541, section 6.2.2.
	field := append([]byte{0x00, 0x01, 'x', 0x7f, 0x81, 0x3f}, bytes.Repeat([]byte{'v'}, 8<<10)...)
	const most = 32 << 20 // what the sockets hold counts too
	sent := 0
	for sent < most && c.WriteContinuation(1, false, field) == nil {
		sent += len(field)
	}
	t.Logf("ended after %d KiB, most of them in sockets", sent>>10)
	if sent >= most {
		t.Errorf("%d MiB of header were taken", sent>>20)
	}
	serves(t, client)
	if n := seen.began.Load(); n != 1 {
		t.Errorf("the backend saw %d requests, want the client's alone", n)
	}
	if now := m.RSS(t); now > before+grows {
		t.Errorf("memory grew from %d to %d MiB", before>>20, now>>20)
	}
}

// serves fails the test unless another client is answered at once.
func serves(t *testing.T, c *http.Client) {
	t.Helper()
	start := time.Now()
	res, err := c.Get("https://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if took := time.Since(start); res.StatusCode != http.StatusOK || took > 5*time.Second {
		t.Errorf("another client: %d after %s", res.StatusCode, took)
	}
}
