package throttle

import (
	"net/http"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon"
)

// A holder is who has places in a class.
type holder struct {
	n       int       // how many
	streams []*ticket // those of them that end when somebody likes, the newest last
}

// looked bounds how many hoards are looked at for the largest.
const looked = 64

// hold gives s a place. The caller holds mu.
func (c *class) hold(s share) {
	c.running++
	h := c.held[s]
	if h == nil {
		h = &holder{}
		c.held[s] = h
	}
	h.n++
}

// release takes a place from s. The caller holds mu.
func (c *class) release(s share) {
	c.running--
	h := c.held[s]
	if h.n--; h.n == 0 {
		delete(c.held, s)
	}
}

// stream notes that t, which holds a place, is a stream.
func (c *class) stream(t *ticket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[t.share]
	if h.streams = append(h.streams, t); len(h.streams) == 2 {
		c.hoards[t.share] = h
	}
}

// endStream notes that t is no stream any more, if it was one. The caller holds
// mu.
func (c *class) endStream(t *ticket) {
	h := c.held[t.share]
	i := slices.Index(h.streams, t)
	if i < 0 {
		return
	}
	if h.streams = slices.Delete(h.streams, i, i+1); len(h.streams) == 1 {
		delete(c.hoards, t.share)
	}
}

// makeRoom ends a stream of somebody who has several, the newest of the largest
// hoard that is found, for w, who has waited and whose share has no place at
// all. Other work ends by itself. Nobody loses the last stream, and for each
// line one is ended until it has had a turn.
func (c *class) makeRoom(w *waiter) {
	c.mu.Lock()
	l := w.in
	if l == nil || l.asked || c.held[l.of] != nil {
		c.mu.Unlock()
		return
	}
	var most *holder
	n := 0
	for _, h := range c.hoards {
		if most == nil || len(h.streams) > len(most.streams) {
			most = h
		}
		if n++; n == looked {
			break
		}
	}
	if most == nil {
		c.mu.Unlock()
		return
	}
	t := most.streams[len(most.streams)-1]
	c.endStream(t)
	l.asked = true
	c.unlink(l)
	c.link(l)
	c.turn = l // or somebody else gets the place, who asks for none then
	c.mu.Unlock()
	d := merlon.Refuse(http.StatusServiceUnavailable, StreamEnded)
	d.Findings = []merlon.Finding{{Rule: "class", Part: t.share.String(), Value: c.name, Message: "has several streams, and somebody waits who has no place"}}
	t.end(d)
}

// streams reports whether an answer lasts for as long as the two sides like.
func streams(res *http.Response) bool {
	return res.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
}
