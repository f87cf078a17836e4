package origin

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
)

// A line is a connection below TLS and HTTP. It gives its place back when it
// is closed, knows who the client is, and closes on one that does not read.
type line struct {
	net.Conn
	e       *Edge
	report  func(Refusal)
	client  netip.AddrPort
	remote  net.Addr
	early   *bufio.Reader // what was read with the PROXY header; nil if nothing is left
	release func()
	closed  sync.Once

	fingerprint string // of the TLS client; empty if there was no handshake here

	wmu    sync.Mutex
	theirs time.Time // the write deadline that others set
	armed  time.Time // the one in force
}

func (l *line) RemoteAddr() net.Addr { return l.remote }

func (l *line) Read(p []byte) (int, error) {
	if l.early != nil {
		if l.early.Buffered() > 0 {
			return l.early.Read(p)
		}
		l.early = nil
	}
	return l.Conn.Read(p)
}

// Close closes the connection and gives its place back.
func (l *line) Close() error {
	l.closed.Do(l.release)
	return l.Conn.Close()
}

// CloseWrite ends what is sent.
func (l *line) CloseWrite() error {
	if cw, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetWriteDeadline sets a deadline beside our own; the earlier counts.
func (l *line) SetWriteDeadline(t time.Time) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if t.Equal(l.theirs) {
		return nil
	}
	l.theirs, l.armed = t, time.Time{}
	if t.IsZero() {
		return nil // the next Write sets ours
	}
	return l.Conn.SetWriteDeadline(t)
}

// SetDeadline sets the read and the write deadline.
func (l *line) SetDeadline(t time.Time) error {
	return errors.Join(l.Conn.SetReadDeadline(t), l.SetWriteDeadline(t))
}

// maxStalls is for how many graces in a row an answer may stall: kernels make
// room in steps of up to a sixteenth of megabytes.
const maxStalls = 3

// Write waits for the client to make room as long as it keeps up with the
// rate. A write that blocks is woken only when much room is free, so its
// waiting says nothing; but tried again it takes what room there is.
func (l *line) Write(p []byte) (int, error) {
	total, stalls := 0, 0
	for {
		began := l.arm()
		n, err := l.Conn.Write(p[total:])
		total += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || l.theirsPassed() {
			return total, err
		}
		if due := int(time.Since(began).Seconds() * float64(l.e.c.MinRate)); n >= due {
			stalls = 0
		} else if stalls++; stalls > maxStalls {
			l.slow()
			return total, err
		}
		l.disarm()
	}
}

// arm sees to it that between three quarters and all of the grace are left
// for a write, without setting a deadline for each.
func (l *line) arm() time.Time {
	now := time.Now()
	grace := l.e.c.SlowGrace
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if l.armed.Sub(now) < grace*3/4 {
		l.armed = now.Add(grace)
		if l.theirs.IsZero() || l.armed.Before(l.theirs) {
			_ = l.Conn.SetWriteDeadline(l.armed) // a broken connection fails the write
		}
	}
	return now
}

func (l *line) disarm() {
	l.wmu.Lock()
	l.armed = time.Time{}
	l.wmu.Unlock()
}

func (l *line) theirsPassed() bool {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	return !l.theirs.IsZero() && !time.Now().Before(l.theirs)
}

// slow reports a client that does not read. There is nothing to tell it.
func (l *line) slow() {
	d := merlon.Refuse(http.StatusRequestTimeout, SlowReader)
	d.Findings = []merlon.Finding{{Rule: "rate", Message: "an answer must be read at min_rate, after slow_grace"}}
	l.report(Refusal{Verdict: merlon.Verdict{Guard: name, Decision: d}, ID: merlon.NewID(), Client: l.client, Count: 1})
}
