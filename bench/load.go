package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/merlon-dev/merlon/bench/traffic"
)

// clients is how many send at a time, each on a connection of its own and the
// next request when it has the last answer.
const clients = 4

// A load is one kind of traffic.
type load struct {
	kind   traffic.Kind
	repeat bool
	cookie string // what is sent beside the request's own cookies
}

// stream returns what one client sends in a round; every gateway gets the same.
func (l load) stream(round, client int) *traffic.Stream {
	if l.repeat {
		return l.kind.Repeat(1)
	}
	return l.kind.Fresh(uint64(round+1), uint64(client))
}

// answers is what came back: how long each took, and how many said what.
type answers struct {
	took   []time.Duration
	status map[int]int
}

// fire sends requests for a while.
func (l load) fire(ctx context.Context, addr string, round int, each time.Duration) (answers, error) {
	ctx, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	all := answers{status: map[int]int{}}
	var errs []error
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			one, err := l.send(ctx, addr, l.stream(round, n))
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			all.took = append(all.took, one.took...)
			for status, n := range one.status {
				all.status[status] += n
			}
		})
	}
	wg.Wait()
	if len(all.took) == 0 {
		errs = append(errs, fmt.Errorf("no request was answered"))
	}
	slices.Sort(all.took)
	return all, errors.Join(errs...)
}

// send is one client.
func (l load) send(ctx context.Context, addr string, s *traffic.Stream) (answers, error) {
	a := answers{status: map[int]int{}}
	c := client{addr: addr}
	defer c.close()
	for ctx.Err() == nil {
		wire := s.Next()
		if l.cookie != "" {
			wire = bytes.Replace(wire, []byte("\r\nCookie: "), []byte("\r\nCookie: "+l.cookie+"; "), 1)
		}
		began := time.Now()
		status, err := c.ask(wire)
		if err != nil {
			return a, err
		}
		a.took = append(a.took, time.Since(began))
		a.status[status]++
	}
	return a, nil
}

// A client writes what it is given and reads the answer, so that the load costs
// little beside what it measures.
type client struct {
	addr string
	tls  *tls.Config // nil for clear text
	conn net.Conn
	in   *bufio.Reader
}

// patience is far above what the slowest gateway needs.
const patience = 20 * time.Second

func (c *client) ask(wire []byte) (status int, err error) {
	fresh := c.conn == nil
	if err := c.open(); err != nil {
		return 0, err
	}
	status, keep, err := c.exchange(wire)
	if err != nil || !keep {
		c.close()
	}
	if err != nil && !fresh { // the server had closed it meanwhile
		return c.ask(wire)
	}
	return status, err
}

// open connects, unless there is a connection, and grants it some time.
func (c *client) open() (err error) {
	if c.conn == nil {
		if c.conn, err = net.Dial("tcp", c.addr); err != nil {
			return err
		}
		if c.tls != nil {
			c.conn = tls.Client(c.conn, c.tls)
		}
		c.in = bufio.NewReader(c.conn)
	}
	return c.conn.SetDeadline(time.Now().Add(patience))
}

func (c *client) exchange(wire []byte) (status int, keep bool, err error) {
	if _, err := c.conn.Write(wire); err != nil {
		return 0, false, err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, false, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, !res.Close, err
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing is left to be read
		c.conn = nil
	}
}
