package lifecycle_test

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

// A client that sends less than it announced and stops is not told that all
// went well.
func TestARequestThatBreaksOffIsNotAnswered200(t *testing.T) {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	go func() {
		for {
			c, err := backend.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
		}
	}()
	m := harness.Serve(t, harness.Options{Insecure: true}, "--upstream", "http://"+backend.Addr().String(), "--off=waf")
	c, err := net.Dial("tcp", m.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 64200\r\n\r\nshort"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(c).ReadString('\n') // a closed connection is as good as a 4xx
	if len(line) > 9 && line[9] == '2' {
		t.Errorf("answered %q", line)
	}
}
