package gateway_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// What goes through a WebSocket is transferred as bodies are, and uses up what
// limit.bytes allows.
func TestWebSocketsAreCountedInBytes(t *testing.T) {
	const size = 100 << 10
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			_, _ = io.WriteString(w, "no WebSocket")
			return
		}
		defer c.Close()
		for {
			kind, b, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, b) != nil {
				return
			}
		}
	}))
	defer echo.Close()
	f := read(t, local+"limit: {bytes: 256KiB/day}\n"+shop, echo.URL)
	s := serve(t, f)
	d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	header := http.Header{"Host": {"shop.example.com"}, "User-Agent": {"test/1.0"}}
	last := 0
	for range 3 {
		c, res, err := d.Dial("wss://"+s.Addr("https")+"/", header)
		if res != nil {
			last = res.StatusCode
		}
		if err != nil {
			break
		}
		if err := c.WriteMessage(websocket.BinaryMessage, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.ReadMessage(); err != nil || len(got) != size {
			t.Fatalf("%d bytes came back: %v", len(got), err)
		}
		_ = c.Close()
		time.Sleep(200 * time.Millisecond) // they are counted at the end
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("after 400 KiB of 256: %d", last)
	}
}
