package waf

import (
	"io"

	"github.com/merlon-dev/merlon"
)

// holdMax is how much of a streaming form is held back, beside the fields
// themselves, before the parts seen so far are judged.
const holdMax = 64 << 10

// fields collects what must be judged of a multipart form.
type fields struct {
	room      int64 // for fields and part headers together
	most      int
	parts     []part
	args      []pair
	cur       []byte
	items     int // fields completed and files begun
	inspected int64
}

func newFields(limit int64, most int) *fields { return &fields{room: limit, most: most} }

func (f *fields) begin(p part) error {
	for _, h := range p.header {
		f.room -= int64(len(h.name) + len(h.value))
	}
	f.parts = append(f.parts, p)
	f.cur = nil
	if p.file {
		f.items++
	} else if len(f.args) >= f.most {
		return errTooMany
	}
	return f.roomLeft()
}

func (f *fields) data(b []byte) error {
	p := &f.parts[len(f.parts)-1]
	p.size += int64(len(b))
	if p.file {
		return nil
	}
	if f.room -= int64(len(b)); f.room < 0 {
		return errTooLong
	}
	f.cur = append(f.cur, b...)
	f.inspected += int64(len(b))
	return nil
}

func (f *fields) roomLeft() error {
	if f.room < 0 {
		return errTooLong
	}
	return nil
}

func (f *fields) end() {
	p := f.parts[len(f.parts)-1]
	if !p.file {
		f.args = append(f.args, pair{p.name, string(f.cur)})
		f.cur = nil
		f.items++
	}
}

// into gives a body what has been collected so far.
func (f *fields) into(b *body) {
	b.args, b.parts = f.args, f.parts
}

// watch judges the beginning of a long multipart form, and has the rest judged
// while it streams: no byte of a field goes to the upstream before the field
// has been judged.
func (g *Guard) watch(r *merlon.Request, m *message, boundary string, head []byte) (seen, *merlon.Decision) {
	f := newFields(g.limit, g.arguments)
	if err := newMultipartReader(boundary, f).feed(head); err != nil {
		return seen{}, g.unparsable(err)
	}
	f.into(&m.body)
	s := &formStream{guard: g, message: *m, fields: newFields(g.limit, g.arguments), judged: f.items, total: r.ContentLength}
	s.reader = newMultipartReader(boundary, s.fields)
	r.WrapBody(func(src io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
		s.src, s.refuse = src, refuse
		return s
	})
	return seen{partly: true, inspected: f.inspected, total: r.ContentLength}, nil
}

// formStream is the body of a long multipart form on its way to the upstream.
type formStream struct {
	src     io.ReadCloser
	refuse  func(merlon.Decision) error
	guard   *Guard
	message message
	reader  *multipartReader
	fields  *fields
	judged  int // of fields.items
	total   int64

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
	understood := int(s.reader.understood() - s.start)
	if s.fields.items > s.judged && (last || understood-s.ready > holdMax) {
		if d := s.judge(); d != nil {
			return d
		}
	}
	if s.fields.items == s.judged {
		s.ready = max(s.ready, understood)
	}
	return nil
}

// judge has the whole request judged again, with everything seen so far.
func (s *formStream) judge() *merlon.Decision {
	s.judged = s.fields.items
	s.fields.into(&s.message.body)
	x, v, err := s.guard.engine.request(&s.message)
	if err != nil {
		d := merlon.Unable(err)
		return &d
	}
	x.close()
	if !v.deny {
		return nil
	}
	d := s.guard.denied(&s.message, v)
	d.Close = true
	return &d
}

// report records how much was seen in the end.
func (s *formStream) report() {
	d := merlon.Pass(Clean)
	d.Findings = seen{partly: true, inspected: s.fields.inspected, total: s.start + int64(len(s.held))}.findings()
	_ = s.refuse(d) // a decision that passes is recorded and refuses nothing
}

// Close closes the client's body.
func (s *formStream) Close() error { return s.src.Close() }
