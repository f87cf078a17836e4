package origin

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/pires/go-proxyproto"
)

// A Listener accepts connections for a net/http server: handshakes are done,
// HTTP/1 is judged, and slow clients hold up nobody but themselves.
type Listener struct {
	inner  net.Listener
	e      *Edge
	tls    *tls.Config
	report func(Refusal)

	ready   chan accepted
	done    chan struct{}
	closing sync.Once
	pending sync.WaitGroup // the accept loop, and handshakes under way

	mu         sync.Mutex
	open       int
	perAddress map[netip.Prefix]int
	quiet      map[merlon.Reason]*silence
}

type accepted struct {
	conn net.Conn
	err  error
}

// A silence adds up reports of one reason, so that a flood makes one a second.
type silence struct {
	until time.Time
	count int
}

// Listen returns a listener on top of ln. With a tls.Config it does the
// handshakes: connections that agreed on "h2" come out as *tls.Conn, which
// net/http serves as HTTP/2; others than HTTP (such as ACME's) end there.
// Without one it serves cleartext HTTP/1. onRefuse is told of every refusal,
// from many goroutines; it must not block. It may be nil.
func (e *Edge) Listen(ln net.Listener, config *tls.Config, onRefuse func(Refusal)) *Listener {
	if onRefuse == nil {
		onRefuse = func(Refusal) {}
	}
	if config != nil {
		config = noting(config)
	}
	l := &Listener{
		inner: ln, e: e, tls: config, report: onRefuse,
		ready: make(chan accepted), done: make(chan struct{}),
		perAddress: map[netip.Prefix]int{}, quiet: map[merlon.Reason]*silence{},
	}
	l.pending.Add(1)
	go l.loop()
	return l
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Accept returns the next connection that is ready to be served.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close stops listening. Connections whose handshake is not done are closed.
func (l *Listener) Close() error {
	err := l.inner.Close()
	l.closing.Do(func() { close(l.done) })
	return err
}

// Drain stops listening, but goes on handing out connections whose handshake
// is under way; it returns when there are none left, which Accept then says.
func (l *Listener) Drain() error {
	err := l.inner.Close()
	l.pending.Wait()
	l.closing.Do(func() { close(l.done) })
	return err
}

func (l *Listener) loop() {
	defer l.pending.Done()
	backoff := time.Duration(0)
	for {
		nc, err := l.inner.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files: better later than never
			l.hand(nil, err)
			backoff = min(max(2*backoff, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(backoff):
			case <-l.done:
				return
			}
			continue
		}
		backoff = 0
		l.accepted(nc)
	}
}

// accepted takes a place for the connection, or closes it at once.
func (l *Listener) accepted(nc net.Conn) {
	client := addrPort(nc.RemoteAddr())
	proxied := l.e.isTrusted(client.Addr())
	key, ok := l.enter(client.Addr(), proxied)
	if !ok {
		l.turnAway(nc, client)
		return
	}
	ln := &line{Conn: nc, e: l.e, report: l.report, client: client, remote: nc.RemoteAddr()}
	ln.release = func() { l.leave(key) }
	proxied = proxied && l.e.c.ProxyProtocol
	if l.tls == nil && !proxied {
		l.hand(newConn(l.e, ln, client, l.report), nil)
		return
	}
	l.pending.Go(func() {
		conn, err := l.prepare(ln, proxied)
		if err != nil {
			_ = ln.Close() // it is refused already
			l.noteRefusal(BadHandshake, http.StatusBadRequest, ln.client, err)
			return
		}
		l.hand(conn, nil)
	})
}

// prepare reads the PROXY header and does the TLS handshake.
func (l *Listener) prepare(ln *line, proxied bool) (net.Conn, error) {
	timeout := l.e.c.HandshakeTimeout
	if proxied {
		if err := ln.SetDeadline(time.Now().Add(timeout)); err != nil {
			return nil, err
		}
		if err := ln.proxyHeader(); err != nil {
			return nil, fmt.Errorf("PROXY protocol: %w", err)
		}
	}
	if l.tls == nil {
		return newConn(l.e, ln, ln.client, l.report), ln.SetDeadline(time.Time{})
	}
	if err := ln.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	tc := tls.Server(ln, l.tls)
	if err := tc.Handshake(); err != nil {
		return nil, err
	}
	if err := ln.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	state := tc.ConnectionState()
	switch state.NegotiatedProtocol {
	case "h2":
		return tc, nil
	case "", "http/1.1", "http/1.0":
		return &secureConn{newConn(l.e, tc, ln.client, l.report), state}, nil
	default:
		return nil, errors.New("the connection is not for HTTP but for " + state.NegotiatedProtocol)
	}
}

// proxyHeader reads the header that a trusted proxy must send.
func (l *line) proxyHeader() error {
	l.early = bufio.NewReaderSize(l.Conn, 512)
	h, err := proxyproto.Read(l.early)
	if err != nil {
		return err
	}
	if h.Command.IsLocal() {
		return nil // the proxy itself, such as a health check
	}
	client := addrPort(h.SourceAddr)
	if !client.IsValid() || !h.TransportProtocol.IsStream() {
		return errors.New("the header must name a TCP client")
	}
	l.client, l.remote = client, net.TCPAddrFromAddrPort(client)
	return nil
}

// hand gives a connection or an error to Accept.
func (l *Listener) hand(conn net.Conn, err error) {
	select {
	case l.ready <- accepted{conn, err}:
	case <-l.done:
		if conn != nil {
			_ = conn.Close() // nobody is there to serve it
		}
	}
}

// enter takes a place; proxied connections count towards the whole only.
func (l *Listener) enter(a netip.Addr, proxied bool) (netip.Prefix, bool) {
	var key netip.Prefix
	if a.IsValid() && !proxied {
		bits := 32
		if a.Is6() {
			bits = 64
		}
		key = netip.PrefixFrom(a, bits).Masked()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.e.c.MaxConnections || key.IsValid() && l.perAddress[key] >= l.e.c.MaxConnectionsPerAddress {
		return key, false
	}
	l.open++
	if key.IsValid() {
		l.perAddress[key]++
	}
	return key, true
}

func (l *Listener) leave(key netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if !key.IsValid() {
		return
	}
	if l.perAddress[key]--; l.perAddress[key] == 0 {
		delete(l.perAddress, key)
	}
}

// turnAway closes with a reset, which leaves nothing behind in the kernel.
func (l *Listener) turnAway(nc net.Conn, client netip.AddrPort) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // only a courtesy to ourselves
	}
	_ = nc.Close() // it was never used
	l.noteRefusal(TooManyConnections, http.StatusServiceUnavailable, client, nil)
}

// noteRefusal reports a refused connection, at most once a second for each
// reason.
func (l *Listener) noteRefusal(reason merlon.Reason, status int, client netip.AddrPort, err error) {
	now := time.Now()
	l.mu.Lock()
	s := l.quiet[reason]
	if s == nil {
		s = &silence{}
		l.quiet[reason] = s
	}
	s.count++
	count := s.count
	loud := !now.Before(s.until)
	if loud {
		s.until, s.count = now.Add(time.Second), 0
	}
	l.mu.Unlock()
	if !loud {
		return
	}
	d := merlon.Refuse(status, reason)
	d.Err = err
	l.report(Refusal{Verdict: merlon.Verdict{Guard: name, Decision: d}, ID: merlon.NewID(), Client: client, Count: count})
}
