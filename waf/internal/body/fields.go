package body

import "github.com/merlon-dev/merlon/waf/internal/message"

// begin notes a part.
func (r *Multipart) begin(p message.Part) error {
	r.file, r.name, r.size, r.text = p.File, p.Name, 0, r.text[:0]
	for _, h := range p.Header {
		r.room -= int64(len(h.Name) + len(h.Value))
	}
	r.parts = append(r.parts, p)
	if !p.File {
		r.fields++
	}
	switch {
	case r.fields > r.most:
		return ErrTooMany
	case r.room < 0:
		return ErrTooLong
	}
	return nil
}

// count takes note of n bytes of content.
func (r *Multipart) count(n int) error {
	r.size += int64(n)
	if r.file {
		return nil
	}
	if r.room -= int64(n); r.room < 0 {
		return ErrTooLong
	}
	r.inspected += int64(n)
	return nil
}

// content collects n bytes of data, of which more will come.
func (r *Multipart) content(n int) error {
	if err := r.count(n); err != nil || r.file {
		return err
	}
	r.text = append(r.text, r.data[:n]...)
	return nil
}

// end completes a part with the next n bytes of data.
func (r *Multipart) end(n int) error {
	if err := r.count(n); err != nil {
		return err
	}
	if last := len(r.parts) - 1; last >= 0 {
		r.parts[last].Size = r.size
	}
	if r.file {
		return nil
	}
	value := ""
	if len(r.text) == 0 {
		value = r.next(n)
	} else {
		value = string(append(r.text, r.data[:n]...))
	}
	r.args = append(r.args, message.Pair{Name: r.name, Value: value})
	return nil
}

// Pending reports whether there is anything that has not been taken.
func (r *Multipart) Pending() bool { return len(r.parts)+len(r.args) > 0 }

// Take moves what has been collected into a body.
func (r *Multipart) Take(b *message.Body) {
	b.Args, b.Parts = r.args, r.parts
	r.args, r.parts = nil, nil
}

// Drop forgets up to that many parts and fields that were collected, and
// returns how many of each it could not yet forget.
func (r *Multipart) Drop(parts, fields int) (partsLeft, fieldsLeft int) {
	n, m := min(parts, len(r.parts)), min(fields, len(r.args))
	r.parts, r.args = r.parts[n:], r.args[m:]
	return parts - n, fields - m
}

// Inspected is how many bytes of fields have been read.
func (r *Multipart) Inspected() int64 { return r.inspected }
