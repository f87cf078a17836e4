package waf

import (
	"io"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// holdMax is how much of a streaming form is held back, beside the fields
// themselves, before the parts seen so far are judged.
const holdMax = 64 << 10

// watch reads the beginning of a long multipart form, and has the rest judged
// while it streams: no byte of a field goes to the upstream before the field
// has been judged.
func (g *Guard) watch(r *merlon.Request, m *message.Request, boundary string, head []byte) (seen, *merlon.Decision) {
	f := body.NewMultipart(boundary, g.limit, g.arguments)
	if err := f.Feed(head); err != nil {
		return seen{}, g.unparsable(err)
	}
	f.Take(&m.Body)
	s := &formStream{guard: g, request: *m, form: body.NewMultipart(boundary, g.limit, g.arguments),
		skipParts: len(m.Body.Parts), skipArgs: len(m.Body.Args)}
	r.WrapBody(func(src io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
		s.src, s.refuse = src, refuse
		return s
	})
	return seen{partly: true, inspected: f.Inspected(), total: r.ContentLength, stream: s}, nil
}

// formStream is the body of a long multipart form on its way to the upstream.
type formStream struct {
	src     io.ReadCloser
	refuse  func(merlon.Decision) error
	guard   *Guard
	request message.Request
	form    *body.Multipart

	// What was judged by Check, and is not judged again.
	skipParts, skipArgs int
	// The score so far, and how much of each verdict's is the request head's.
	score, headScore int
	hits             []message.Hit

	held  []byte // read from src; [off:] is not delivered
	off   int
	start int64 // offset in the body of held[0]
	ready int   // held[off:ready] may be delivered
	blind bool  // refused, but only monitored: watch no more
	err   error
	chunk [32 << 10]byte
}

// Read delivers what has been judged.
func (s *formStream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.ready == s.off && s.err == nil {
		s.fill()
	}
	if s.ready == s.off {
		return 0, s.err
	}
	n := copy(p, s.held[s.off:s.ready])
	s.off += n
	return n, nil
}

// fill reads on and decides how much may go.
func (s *formStream) fill() {
	s.start += int64(s.off)
	s.held = s.held[:copy(s.held, s.held[s.off:])]
	s.off, s.ready = 0, 0
	n, err := s.src.Read(s.chunk[:])
	s.held = append(s.held, s.chunk[:n]...)
	if s.blind {
		s.ready, s.err = len(s.held), err
		return
	}
	d := s.look(s.chunk[:n], err == io.EOF)
	if d != nil {
		if refused := s.refuse(*d); refused != nil {
			s.held, s.ready, s.err = nil, 0, refused
			return
		}
		s.blind = true
		s.ready, s.err = len(s.held), err
		return
	}
	if err == io.EOF {
		s.ready = len(s.held)
		s.report()
	}
	s.err = err
}

// look parses on, judges what is due and sets ready.
func (s *formStream) look(b []byte, last bool) *merlon.Decision {
	err := s.form.Feed(b)
	if err == nil && last {
		err = s.form.Finish()
	}
	if err != nil {
		return s.guard.unparsable(err)
	}
	s.skipParts, s.skipArgs = s.form.Drop(s.skipParts, s.skipArgs) // Check has judged them
	understood := int(s.form.Understood() - s.start)
	// While fields come, they are held: there is room for them. A file is not.
	if s.form.Pending() && (last || s.form.InFile() && understood-s.ready > holdMax) {
		if d := s.judge(); d != nil {
			return d
		}
	}
	if !s.form.Pending() {
		s.ready = max(s.ready, understood)
	}
	return nil
}

// begin takes over Check's verdict about the head.
func (s *formStream) begin(v message.Verdict) { s.score, s.hits, s.headScore = v.Score, v.Hits, -1 }

// judge has the parts that are new judged, together with the request's head.
// The scores add up over the whole form as if it had been judged at once.
func (s *formStream) judge() *merlon.Decision {
	if s.headScore < 0 {
		s.request.Body = message.Body{Kind: message.Multipart}
		v, err := s.ask()
		if err != nil {
			d := merlon.Unable(err)
			return &d
		}
		s.headScore = v.Score
	}
	s.form.Take(&s.request.Body)
	v, err := s.ask()
	if err != nil {
		d := merlon.Unable(err)
		return &d
	}
	s.score += max(0, v.Score-s.headScore)
	s.hits = append(s.hits, v.Hits...)
	if !v.Deny && s.score < v.Threshold {
		return nil
	}
	v.Score, v.Hits = max(v.Score, s.score), s.hits
	d := s.guard.denied(&s.request, v)
	d.Close = true
	return &d
}

func (s *formStream) ask() (message.Verdict, error) {
	x, v, err := s.guard.engine.Request(&s.request)
	if err != nil {
		return v, err
	}
	x.Close()
	return v, nil
}

// report records how much was seen in the end.
func (s *formStream) report() {
	d := merlon.Pass(Clean)
	d.Findings = seen{partly: true, inspected: s.form.Inspected(), total: s.start + int64(len(s.held))}.findings()
	_ = s.refuse(d) // a decision that passes is recorded and refuses nothing
}

// Close closes the client's body.
func (s *formStream) Close() error { return s.src.Close() }
