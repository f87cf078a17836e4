package origin

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
)

// A Refusal is what a listener refused by itself, before or beside any
// request that the gateway sees.
type Refusal struct {
	merlon.Verdict
	ID     string         // shown to the client, if it was sent an answer
	Client netip.AddrPort // the connection's peer, or whom PROXY protocol names
	// Answered says that the client was sent the refusal, and that nothing
	// of the request reached the server. Otherwise the connection was
	// closed without a word, or the request is with a handler already:
	// then reading its body fails with a [merlon.LateRefusal] that holds
	// the same verdict, which [merlon.BodyFailed] turns into an answer.
	Answered bool
	// Late says that the request is with a handler already.
	Late bool
	// Count is how many connections were refused for this since the last
	// report; more than 1 only under attack.
	Count int
}

// A conn hands net/http only requests that the judge found unambiguous, each
// when it is asked for, and keeps time.
//
// Answers stay in order: while a request is being answered net/http reads one
// byte in the background, to see whether the client is gone. A bad head that
// arrives meanwhile is kept until net/http, having sent its answer, asks for
// the next request.
type conn struct {
	net.Conn
	e      *Edge
	client netip.AddrPort
	report func(Refusal)

	mode      atomic.Int32
	j         judge
	refused   *Refusal // kept until its turn
	err       error    // every further Read fails with it
	birth     time.Time
	headBegan time.Time
	patience  time.Duration // how long a body may still keep us waiting
	messages  bool          // a request was read before

	mu      sync.Mutex // the deadlines are set from other goroutines, too
	theirs  time.Time  // net/http's read deadline
	ours    time.Time
	applied time.Time
}

// The modes of a conn.
const (
	judging int32 = iota
	asked         // the request being answered asks for WebSocket
	through       // 101 was answered: what follows is not HTTP
)

// A secureConn is a conn over TLS. net/http asks it for the state.
type secureConn struct {
	*conn
	state tls.ConnectionState
}

func (c *secureConn) ConnectionState() tls.ConnectionState { return c.state }

func newConn(e *Edge, nc net.Conn, client netip.AddrPort, report func(Refusal)) *conn {
	c := &conn{Conn: nc, e: e, client: client, report: report, birth: time.Now()}
	c.j.maxHeader, c.j.maxFields = int(e.c.MaxHeader), e.c.MaxHeaderFields
	c.j.next()
	return c
}

// Read hands over judged bytes, of one request at a time.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	background := len(p) == 1 // of all reads only net/http's watch for a lost client is so short
	for {
		switch c.mode.Load() {
		case through:
			return c.readThrough(p)
		case asked:
			if background {
				return c.hold(true)
			}
			c.mode.CompareAndSwap(asked, judging) // it was answered, and not with 101
			continue
		}
		if n := c.j.take(p); n > 0 {
			if c.j.head.websocket && !background && c.j.state == atEnd && c.j.r == c.j.ok {
				c.mode.Store(asked)
			}
			return n, nil
		}
		if c.err != nil {
			return 0, c.err
		}
		if c.refused != nil {
			if background && !c.refused.Late {
				return c.hold(false)
			}
			return 0, c.refuse()
		}
		if c.j.state == atEnd {
			c.j.next()
			c.messages, c.headBegan = true, time.Time{}
		}
		if f := c.j.advance(); f != nil {
			c.keep(f)
			continue
		}
		if c.j.ok > c.j.r {
			continue
		}
		if n, err := c.fill(p, background); n > 0 || err != nil {
			return n, err
		}
	}
}

// fill reads from the client: into p if that may be, else for the judge.
func (c *conn) fill(p []byte, background bool) (int, error) {
	body := c.j.state != inHead
	now := c.expect(body, background)
	direct := c.j.direct()
	into := p
	if direct > 0 {
		into = p[:min(int64(len(p)), direct)]
	} else if into = c.j.space(); len(into) == 0 {
		return 0, io.ErrShortBuffer // cannot be: the judge's bounds are below its buffer's
	}
	n, err := c.Conn.Read(into)
	if body {
		waited := time.Since(now) - time.Duration(n)*time.Second/time.Duration(c.e.c.MinRate)
		c.patience = min(c.e.c.SlowGrace, c.patience-waited)
	}
	if direct > 0 {
		c.j.went(n)
	} else {
		c.j.w += n
	}
	if err != nil && n == 0 {
		return 0, c.readFailed(err, body)
	}
	if direct > 0 {
		return n, nil // an error will come again
	}
	return 0, nil
}

// expect sets our read deadline for what is due next.
func (c *conn) expect(body, background bool) time.Time {
	now := time.Now()
	var deadline time.Time
	switch {
	case body:
		deadline = now.Add(max(c.patience, 0))
	case background:
	case c.j.begun() || !c.messages:
		if c.headBegan.IsZero() {
			c.headBegan = now
			if !c.messages {
				c.headBegan = c.birth
			}
		}
		deadline = c.headBegan.Add(c.e.c.HeaderTimeout)
	default:
		deadline = now.Add(c.e.c.IdleTimeout)
	}
	if !body {
		c.patience = c.e.c.SlowGrace
	}
	c.mu.Lock()
	c.ours = deadline
	c.apply()
	c.mu.Unlock()
	return now
}

// readFailed turns the error of a read into what the reader is told. Our own
// deadlines are refusals.
func (c *conn) readFailed(err error, body bool) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.err = err
		return err
	}
	c.mu.Lock()
	own := !c.ours.IsZero() && !time.Now().Before(c.ours) && (c.theirs.IsZero() || c.ours.Before(c.theirs))
	c.mu.Unlock()
	switch {
	case !own:
		return err
	case body:
		c.keep(&flaw{http.StatusRequestTimeout, SlowBody, "a body must arrive at min_rate, after slow_grace", nil})
		return c.refuse()
	case c.j.begun():
		c.keep(&flaw{http.StatusRequestTimeout, SlowHeader, "a header must arrive within header_timeout", nil})
		return c.refuse()
	default:
		c.err = io.EOF // idle: nothing to say
		return io.EOF
	}
}

// keep notes a refusal. Its line is copied, shortened, and without the value
// of fields that hold secrets.
func (c *conn) keep(f *flaw) {
	d := merlon.Refuse(f.status, f.reason)
	d.Close = true
	finding := merlon.Finding{Rule: "http1", Message: f.rule}
	if f.where != nil {
		where := f.where[:min(len(f.where), 96)]
		if name, _, ok := bytes.Cut(where, []byte(":")); ok && bytes.ContainsAny(name, "aAkK") && secretField(name) {
			where = name
		}
		finding.Part, finding.Value = "head or framing", strconv.QuoteToASCII(string(where))
	}
	d.Findings = []merlon.Finding{finding}
	c.refused = &Refusal{
		Verdict: merlon.Verdict{Guard: name, Decision: d},
		ID:      merlon.NewID(), Client: c.client, Count: 1,
		Late: c.j.headTaken && c.j.start < 0,
	}
}

func secretField(name []byte) bool {
	name = bytes.ToLower(name)
	return bytes.Contains(name, []byte("cookie")) || bytes.Contains(name, []byte("auth")) ||
		bytes.Contains(name, []byte("key")) || bytes.Contains(name, []byte("token"))
}

// refuse reports what was kept, and answers it unless the request is with a
// handler, which will.
func (c *conn) refuse() error {
	r := *c.refused
	c.refused = nil
	if r.Late {
		c.err = &merlon.LateRefusal{Verdict: r.Verdict}
		c.report(r)
		return c.err
	}
	r.Answered = true
	c.report(r)
	c.answer(&r)
	c.err = io.EOF
	return io.EOF
}

const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// answer writes the refusal as merlon.Respond would, and lingers so that the
// answer is not lost to a reset because more was sent (RFC 9112, 9.6).
func (c *conn) answer(r *Refusal) {
	code := r.Decision.Code()
	title := http.StatusText(code)
	body := `{"type":"about:blank","title":"` + title + `","status":` + strconv.Itoa(code) + `,"id":"` + r.ID + "\"}\n"
	b := make([]byte, 0, 512)
	b = append(b, "HTTP/1.1 "+strconv.Itoa(code)+" "+title+"\r\nContent-Type: application/problem+json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\nX-Request-Id: "+r.ID+"\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"+body...)
	deadline := time.Now().Add(lingerTime)
	_ = c.Conn.SetDeadline(deadline) // a failure shows in the calls that follow
	if _, err := c.Conn.Write(b); err != nil {
		return
	}
	if c.CloseWrite() != nil {
		return
	}
	_, _ = io.CopyBuffer(io.Discard, io.LimitReader(plainReader{c.Conn}, lingerBytes), make([]byte, firstBuffer))
}

type plainReader struct{ io.Reader }

// hold is the background read while nothing may be handed over: it watches
// for the client's leaving. What arrives is kept if it may be WebSocket's, and
// dropped if it follows a request that will be refused.
func (c *conn) hold(keep bool) (int, error) {
	c.mu.Lock()
	c.ours = time.Time{}
	c.apply()
	c.mu.Unlock()
	var scratch []byte
	for {
		b := scratch
		if keep {
			if b = c.j.space(); len(b) == 0 {
				c.err = errors.New("origin: too much was sent before WebSocket was agreed on")
				keep = false
				continue
			}
		} else if b == nil {
			scratch = make([]byte, firstBuffer)
			b = scratch
		}
		n, err := c.Conn.Read(b)
		if keep {
			c.j.w += n
		}
		if err != nil {
			return 0, err
		}
	}
}

// readThrough reads after 101.
func (c *conn) readThrough(p []byte) (int, error) {
	c.j.ok = c.j.w
	if n := c.j.take(p); n > 0 {
		return n, nil
	}
	if c.err != nil {
		return 0, c.err
	}
	c.mu.Lock()
	c.ours = time.Time{}
	c.apply()
	c.mu.Unlock()
	return c.Conn.Read(p)
}

// Write looks for the answer to a request for WebSocket.
func (c *conn) Write(p []byte) (int, error) {
	if c.mode.Load() == asked && len(p) >= 12 && string(p[:7]) == "HTTP/1." {
		switch {
		case string(p[8:12]) == " 101":
			c.mode.CompareAndSwap(asked, through)
		case p[9] != '1':
			c.mode.CompareAndSwap(asked, judging)
		}
	}
	return c.Conn.Write(p)
}

// CloseWrite lets net/http say that it is done before it closes.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetReadDeadline sets net/http's deadline beside our own; the earlier counts.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.theirs = t
	return c.apply()
}

// SetDeadline sets the read and the write deadline.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) apply() error {
	t := c.theirs
	if t.IsZero() || !c.ours.IsZero() && c.ours.Before(t) {
		t = c.ours
	}
	if t.Equal(c.applied) {
		return nil
	}
	c.applied = t
	return c.Conn.SetReadDeadline(t)
}
