package waf

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

const (
	// overlap is how much of what was judged is judged again with what follows:
	// a match is found if it is not longer.
	overlap = 4 << 10
	// pieceSize is how much of an answer is read and judged at once.
	pieceSize = 32 << 10
	// holdCoded is how much of a compressed answer is held back until a decoder
	// shows its text, and holdTime how long an answer is that does not go on.
	holdCoded = 64 << 10
	holdTime  = 250 * time.Millisecond
)

// An exchange is what the rules remember of a request, from Check to Done.
type exchange struct {
	mu     sync.Mutex
	rules  message.Exchange
	closed bool
}

func (x *exchange) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.closed {
		x.closed = true
		x.rules.Close()
	}
}

// A rest is an answer of which the beginning has been judged. What follows is
// judged while it is delivered: no byte goes to the client before it has been
// judged together with the last bytes before it. A refusal is an error of
// reading, so that the answer breaks off.
type rest struct {
	src    io.ReadCloser
	refuse func(merlon.Decision) error
	open   *exchange
	rules  message.Continuer
	total  int64 // as declared; negative if not known

	skip   int    // bytes of the text that were judged with the beginning
	window []byte // a space, the end of what was judged, and the piece
	inLine bool   // the window begins within a line
	judged int64  // bytes of the text
	blind  bool   // nothing more is judged
	err    error

	mu    sync.Mutex // of coded: it may be closed while it is read
	coded *coded     // nil if the answer is not compressed
}

// watchRest has what follows the beginning judged: of text, or of what is
// decoded by coding, of which head is the part that has been judged.
func (g *Guard) watchRest(r *merlon.Request, res *http.Response, x *exchange, rules message.Continuer, head []byte, coding string) {
	r.WrapAnswer(res, func(src io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
		s := &rest{src: src, refuse: refuse, open: x, rules: rules, total: res.ContentLength, skip: len(head), judged: int64(len(head))}
		s.remember(head)
		if coding != "" {
			s.coded = newCoded(coding)
		}
		return s
	})
}

// Read delivers what has been judged.
func (s *rest) Read(p []byte) (int, error) {
	switch {
	case s.err != nil:
		return 0, s.err
	case s.coded != nil:
		return s.readCoded(p)
	case s.blind:
		return s.src.Read(p)
	}
	n, err := s.src.Read(p[:min(len(p), pieceSize)])
	if refused := s.look(p[:n]); refused != nil {
		clear(p[:n])
		s.err = refused
		return 0, refused
	}
	return n, err
}

// readCoded delivers of a compressed answer what the decoder has shown.
func (s *rest) readCoded(p []byte) (int, error) {
	c := s.coded
	for c.ready == 0 {
		if s.err != nil {
			return 0, s.err
		}
		b, err := c.read(s.src)
		s.err = err
		if s.blind {
			c.ready = len(c.held)
			continue
		}
		if refused := s.decode(b, err == io.EOF); refused != nil {
			c.held, c.ready, s.err = nil, 0, refused
		} else if err == nil && len(b) == 0 || len(c.held) > holdCoded {
			c.ready = len(c.held) // it waits in the decoder, for what does not come
		}
	}
	n := copy(p, c.held[:c.ready])
	c.deliver(n)
	return n, nil
}

// decode has judged what a piece of a compressed answer completes.
func (s *rest) decode(b []byte, last bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.coded
	if c.closed {
		return http.ErrBodyReadAfterClose
	}
	c.feed(b, last)
	for !s.blind {
		text, err := c.more()
		if err != nil {
			s.goBlind(err.Error())
			break
		}
		if text == nil {
			break
		}
		if refused := s.look(text); refused != nil {
			return refused
		}
	}
	if s.blind {
		c.ready = len(c.held)
		c.stop()
	}
	return nil
}

// look judges a piece of the text.
func (s *rest) look(b []byte) error {
	n := min(len(b), s.skip)
	s.skip -= n
	if b = b[n:]; len(b) == 0 || s.blind {
		return nil
	}
	s.window = append(s.window, b...)
	window := s.window
	if !s.inLine {
		window = window[1:]
	}
	s.open.mu.Lock()
	defer s.open.mu.Unlock()
	if s.open.closed {
		return http.ErrBodyReadAfterClose
	}
	v, err := s.rules.More(window)
	switch {
	case err != nil:
		return s.stop(merlon.Unable(err))
	case v.Deny:
		return s.stop(s.denied(v))
	}
	s.judged += int64(len(b))
	s.remember(s.window[1:])
	return nil
}

// remember keeps the end of what was judged, to judge it with what follows.
// The space before it keeps patterns that begin with ^ from matching within a
// line.
func (s *rest) remember(judged []byte) {
	if from := len(judged) - overlap; from > 0 {
		s.inLine = judged[from-1] != '\n'
		judged = judged[from:]
	}
	s.window = append(append(s.window[:0], ' '), judged...)
}

func (s *rest) denied(v message.Verdict) merlon.Decision {
	d := merlon.Refuse(http.StatusBadGateway, ResponseLeak)
	d.Findings = append(describe(v, responsePart), s.inspected("the answer had begun, and was broken off there"))
	d.Remedy = remedy(v)
	return d
}

// stop refuses the rest. If that is only monitored, it goes on, unwatched.
func (s *rest) stop(d merlon.Decision) error {
	s.blind, s.window = true, nil
	return s.refuse(d)
}

// goBlind lets the rest pass unjudged, and records why.
func (s *rest) goBlind(why string) {
	d := merlon.Pass(ResponseClean)
	d.Findings = []merlon.Finding{s.inspected("the rest passed uninspected: " + why)}
	_ = s.stop(d) // a decision that passes is recorded and refuses nothing
}

func (s *rest) inspected(message string) merlon.Finding {
	return inspected(s.judged, s.total, s.coded != nil, message)
}

// inspected says how much of an answer was judged.
func inspected(judged, total int64, decoded bool, message string) merlon.Finding {
	value := fmt.Sprintf("%d bytes", judged)
	switch {
	case decoded:
		value += " after decompression"
	case total >= 0:
		value = fmt.Sprintf("%d of %d bytes", judged, total)
	}
	return merlon.Finding{Rule: "inspected", Part: "answer", Value: value, Message: message}
}

// Close closes the upstream's body.
func (s *rest) Close() error {
	if s.coded != nil {
		s.mu.Lock()
		s.coded.stop()
		s.mu.Unlock()
	}
	return s.src.Close()
}
