package waf

import (
	"compress/gzip"
	"errors"
	"io"
	"iter"

	"github.com/andybalholm/brotli"

	"github.com/merlon-dev/merlon/waf/internal/body"
)

// coded is a compressed answer: what of it is not yet delivered, and a decoder
// beside it that shows its text.
type coded struct {
	held  []byte // read, not delivered
	ready int    // how much of it the decoder has shown
	chunk []byte // room to read into

	in      []byte // fed, not yet taken by the decoder
	last    bool   // nothing follows in
	fed     int64
	taken   int64 // by the decoder
	shown   int64 // the part of taken that is in the text that was shown
	gone    int64 // delivered
	text    int64 // length of the text so far
	eager   bool  // the decoder shows whatever it can
	next    func() ([]byte, error, bool)
	stopped func()
	yield   func([]byte, error) bool
	closed  bool
}

// newCoded starts a decoder. It runs whenever it is asked for more, and never
// by itself.
func newCoded(coding string) *coded {
	c := &coded{eager: coding == "br"}
	c.next, c.stopped = iter.Pull2(func(yield func([]byte, error) bool) {
		c.yield = yield
		c.run(coding)
	})
	return c
}

var errStopped = errors.New("the answer was closed")

// run yields pieces of the text, nil whenever it needs more to go on, and an
// error at the end.
func (c *coded) run(coding string) {
	var r io.Reader
	var err error
	if coding == "br" {
		r = brotli.NewReader(c)
	} else if r, err = gzip.NewReader(c); err != nil {
		c.end(err)
		return
	}
	b := make([]byte, pieceSize)
	for {
		n, err := r.Read(b)
		if n > 0 {
			c.shown = c.taken
			if !c.yield(b[:n], nil) {
				return
			}
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *coded) end(err error) {
	if !errors.Is(err, errStopped) {
		c.yield(nil, err)
	}
}

// wait returns when there is something for the decoder.
func (c *coded) wait() error {
	for len(c.in) == 0 {
		switch {
		case c.last:
			return io.EOF
		case !c.yield(nil, nil):
			return errStopped
		}
	}
	return nil
}

// Read and ReadByte give the decoder what was fed.
func (c *coded) Read(p []byte) (int, error) {
	if err := c.wait(); err != nil {
		return 0, err
	}
	n := copy(p, c.in)
	c.in, c.taken = c.in[n:], c.taken+int64(n)
	return n, nil
}

func (c *coded) ReadByte() (byte, error) {
	if err := c.wait(); err != nil {
		return 0, err
	}
	b := c.in[0]
	c.in, c.taken = c.in[1:], c.taken+1
	return b, nil
}

// read reads on from src. If something is held and nothing comes for long, it
// returns nothing.
func (c *coded) read(src io.Reader) ([]byte, error) {
	if p, ok := src.(*pump); ok && len(c.held) > 0 && !p.waits(holdTime) {
		return nil, nil
	}
	if c.chunk == nil {
		c.chunk = make([]byte, pieceSize)
	}
	n, err := src.Read(c.chunk)
	c.held = append(c.held, c.chunk[:n]...)
	return c.chunk[:n], err
}

// feed gives the decoder more.
func (c *coded) feed(b []byte, last bool) {
	c.in, c.last, c.fed = b, last, c.fed+int64(len(b))
}

// more returns the next piece of the text, nil if there is none as yet.
func (c *coded) more() ([]byte, error) {
	text, err, ok := c.next()
	switch {
	case !ok || err == io.EOF:
		c.ready = len(c.held)
		return nil, nil
	case err != nil:
		return nil, err
	case text == nil && c.eager:
		c.shown = c.taken
	}
	c.ready = int(max(0, c.shown-c.gone)) // more may have gone, if it had to wait too long
	c.text += int64(len(text))
	if c.text > max(body.RatioMatters, body.MaxRatio*c.fed) {
		return nil, body.ErrBomb
	}
	return text, nil
}

// deliver notes that held[:n] has been delivered.
func (c *coded) deliver(n int) {
	c.held = c.held[:copy(c.held, c.held[n:])]
	c.ready -= n
	c.gone += int64(n)
}

// stop ends the decoder.
func (c *coded) stop() {
	c.closed = true
	c.stopped()
}
