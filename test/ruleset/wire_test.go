package ruleset_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/corpus"
)

// parallel is how many connections send at once.
const parallel = 2

// answerWithin is how long an answer may take; a request that is held longer
// fails the test.
const answerWithin = 30 * time.Second

// An answer is what came back for one request.
type answer struct {
	Status  int    // 0: the connection was closed without an answer
	ID      string // X-Request-Id
	Backend bool   // it is the backend's own
}

// passed reports whether the client got what the backend says to everybody: a
// 200 that the backend did not give would be a lie.
func (a answer) passed() bool { return a.Status == http.StatusOK && a.Backend }

// A sender sends requests as the bytes they are, over one connection as long
// as it lasts.
type sender struct {
	dial   func() (net.Conn, error)
	conn   net.Conn
	r      *bufio.Reader
	reused bool
}

func plainDial(addr string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.DialTimeout("tcp", addr, answerWithin) }
}

func tlsDial(addr string, c *tls.Config) func() (net.Conn, error) {
	return func() (net.Conn, error) {
		return tls.DialWithDialer(&net.Dialer{Timeout: answerWithin}, "tcp", addr, c)
	}
}

// A shape is what a client must know about bytes that it does not understand.
type shape struct {
	method string
	alone  bool // the connection is of no use afterwards
	short  bool // the server would wait for more: say that nothing follows
}

func shapeOf(wire []byte) shape {
	r := bufio.NewReader(bytes.NewReader(wire))
	hr, err := http.ReadRequest(r)
	if err != nil {
		return shape{method: http.MethodGet, alone: true, short: true}
	}
	s := shape{method: hr.Method}
	_, err = io.Copy(io.Discard, hr.Body)
	s.short = err != nil
	_, more := r.Peek(1)
	s.alone = s.short || hr.Close || more == nil || hr.Method == http.MethodConnect || hr.Header.Get("Upgrade") != ""
	return s
}

func (s *sender) close() {
	if s.conn != nil {
		_ = s.conn.Close() // nothing is on its way
		s.conn = nil
	}
}

// send sends one request and reads its answer.
func (s *sender) send(wire []byte) (answer, error) {
	sh := shapeOf(wire)
	if sh.alone {
		s.close()
	}
	for {
		if s.conn == nil {
			c, err := s.dial()
			if err != nil {
				return answer{}, err
			}
			s.conn, s.r, s.reused = c, bufio.NewReader(c), false
		}
		a, keep, err := s.exchange(wire, sh)
		stale := s.reused && err == nil && a.Status == 0
		s.reused = true
		if !keep || sh.alone || err != nil {
			s.close()
		}
		if !stale { // a kept connection may have been closed under the request
			return a, err
		}
	}
}

func (s *sender) exchange(wire []byte, sh shape) (a answer, keep bool, err error) {
	if err := s.conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return a, false, err
	}
	_, werr := s.conn.Write(wire) // a refusal may come before the last byte went
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok && sh.short {
		_ = half.CloseWrite() // fails where the server has closed already
	}
	for {
		res, err := http.ReadResponse(s.r, &http.Request{Method: sh.method})
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				return a, false, err
			}
			return a, false, nil
		}
		if res.StatusCode < 200 {
			continue
		}
		a = answer{res.StatusCode, res.Header.Get("X-Request-Id"), res.Header.Get(backendMark) != ""}
		if sh.method == http.MethodConnect {
			return a, false, nil
		}
		_, err = io.Copy(io.Discard, res.Body)
		return a, err == nil && werr == nil && !res.Close, err
	}
}

// sendAll sends every request and hands each answer to got, which may send
// again.
func sendAll(t *testing.T, dial func() (net.Conn, error), list []corpus.Request, got func(r corpus.Request, a answer, again func() answer)) {
	t.Helper()
	work := make(chan corpus.Request)
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			s := &sender{dial: dial}
			defer s.close()
			for r := range work {
				one := func() answer {
					a, err := s.send(r.Wire())
					if err != nil {
						t.Errorf("%s: %v", r.ID, err)
					}
					return a
				}
				got(r, one(), one)
			}
		})
	}
	for _, r := range list {
		work <- r
	}
	close(work)
	wg.Wait()
}
