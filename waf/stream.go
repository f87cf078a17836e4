package waf

import (
	"io"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// holdMax is how much of a streaming form is held back, beside the fields
// themselves, before the parts seen so far are judged.
const holdMax = 64 << 10

// fields collects what must be judged of a multipart form.
type fields struct {
	room      int64 // for fields and part headers together
	most      int
	parts     []message.Part // begun since the last take
	args      []message.Pair // completed since the last take
	file      bool           // the current part is a file
	name      string         // of the current part
	size      int64
	text      []byte // of the current field
	count     int    // fields begun
	inspected int64
}

func newFields(limit int64, most int) *fields { return &fields{room: limit, most: most} }

func (f *fields) begin(p message.Part) error {
	f.file, f.name, f.size, f.text = p.File, p.Name, 0, nil
	for _, h := range p.Header {
		f.room -= int64(len(h.Name) + len(h.Value))
	}
	f.parts = append(f.parts, p)
	if !p.File {
		f.count++
	}
	switch {
	case f.count > f.most:
		return errTooMany
	case f.room < 0:
		return errTooLong
	}
	return nil
}

func (f *fields) data(b []byte) error {
	f.size += int64(len(b))
	if f.file {
		return nil
	}
	if f.room -= int64(len(b)); f.room < 0 {
		return errTooLong
	}
	f.text = append(f.text, b...)
	f.inspected += int64(len(b))
	return nil
}

func (f *fields) end() {
	if n := len(f.parts); n > 0 {
		f.parts[n-1].Size = f.size
	}
	if !f.file {
		f.args = append(f.args, message.Pair{Name: f.name, Value: string(f.text)})
		f.text = nil
	}
}

// pending reports whether there is anything that has not been taken.
func (f *fields) pending() bool { return len(f.parts)+len(f.args) > 0 }

// take moves what has been collected into a body.
func (f *fields) take(b *message.Body) {
	b.Args, b.Parts = f.args, f.parts
	f.args, f.parts = nil, nil
}

// watch reads the beginning of a long multipart form, and has the rest judged
// while it streams: no byte of a field goes to the upstream before the field
// has been judged.
func (g *Guard) watch(r *merlon.Request, m *message.Request, boundary string, head []byte) (seen, *merlon.Decision) {
	f := newFields(g.limit, g.arguments)
	if err := newMultipartReader(boundary, f).feed(head); err != nil {
		return seen{}, g.unparsable(err)
	}
	parts, args := len(f.parts), len(f.args)
	f.take(&m.Body)
	s := &formStream{guard: g, request: *m, fields: newFields(g.limit, g.arguments), skipParts: parts, skipArgs: args}
	s.reader = newMultipartReader(boundary, s.fields)
	r.WrapBody(func(src io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
		s.src, s.refuse = src, refuse
		return s
	})
	return seen{partly: true, inspected: f.inspected, total: r.ContentLength, stream: s}, nil
}

// formStream is the body of a long multipart form on its way to the upstream.
type formStream struct {
	src     io.ReadCloser
	refuse  func(merlon.Decision) error
	guard   *Guard
	request message.Request
	reader  *multipartReader
	fields  *fields

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
	err := s.reader.feed(b)
	if err == nil && last {
		err = s.reader.finish()
	}
	if err != nil {
		return s.guard.unparsable(err)
	}
	s.skip()
	understood := int(s.reader.understood() - s.start)
	// While fields come, they are held: there is room for them. A file is not.
	if s.fields.pending() && (last || s.reader.inFile() && understood-s.ready > holdMax) {
		if d := s.judge(); d != nil {
			return d
		}
	}
	if !s.fields.pending() {
		s.ready = max(s.ready, understood)
	}
	return nil
}

// skip drops what Check has judged.
func (s *formStream) skip() {
	n := min(s.skipParts, len(s.fields.parts))
	s.fields.parts, s.skipParts = s.fields.parts[n:], s.skipParts-n
	n = min(s.skipArgs, len(s.fields.args))
	s.fields.args, s.skipArgs = s.fields.args[n:], s.skipArgs-n
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
	s.fields.take(&s.request.Body)
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
	d.Findings = seen{partly: true, inspected: s.fields.inspected, total: s.start + int64(len(s.held))}.findings()
	_ = s.refuse(d) // a decision that passes is recorded and refuses nothing
}

// Close closes the client's body.
func (s *formStream) Close() error { return s.src.Close() }
