package throttle

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// A shedder bounds how many requests wait for the beginning of their answers.
// The bound falls by a fifth in each window in which more than a tenth of them
// waited for longer than the target, and grows by one in each in which it was
// reached and fewer did (additive increase, multiplicative decrease). Time in
// which the client had not yet sent its request does not count, or whoever
// sends slowly could have the others refused; nor do clients that go away.
type shedder struct {
	target time.Duration
	window time.Duration

	mu    sync.Mutex
	limit float64
	n     int // waiting, or let through to the class's queue
	peak  int // the most of them in this window

	began      time.Time // of the window
	rounds     int       // windows without enough to judge
	epoch      uint64    // counts falls: what was let through before is no judge of the bound after
	gen        uint64    // counts windows
	fast, slow int
	answers    int           // of whatever epoch
	young      int           // waiting since this window
	older      int           // waiting since one before
	pace       time.Duration // of answers, of late
}

// A probe is one request as the shedder knows it. It belongs to the shedder's lock.
type probe struct {
	held, started, over bool
	epoch, gen          uint64
	at                  time.Time
}

const (
	unlimited = 1 << 20
	enough    = 10 // answers in a window
	fall      = 0.8
	patience  = 10 // windows in which there may be fewer, until they are forgotten
	minWindow = 250 * time.Millisecond
)

func newShedder(target time.Duration) *shedder {
	return &shedder{target: target, window: max(target, minWindow), limit: unlimited}
}

// A verdict is what an answer says of the backend, beside the time it took.
type verdict uint8

const (
	byTime     verdict = iota
	slow               // whatever it took
	slowIfLate         // if it took long; otherwise nothing is known
	unknown
)

// judge tells overload from the application's own failures, which anybody may
// be able to bring about at will.
func judge(status int) verdict {
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return slow
	}
	return byTime
}

// reserve reports whether there is room for one more, and holds it if the
// request is whole.
func (s *shedder) reserve(p *probe, whole bool, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roll(now)
	if !s.room() {
		return false
	}
	if whole {
		s.hold(p)
	}
	return true
}

func (s *shedder) room() bool {
	if s.n < int(s.limit) {
		return true
	}
	s.peak = max(s.peak, s.n)
	return false
}

func (s *shedder) hold(p *probe) {
	p.held = true
	s.n++
	s.peak = max(s.peak, s.n)
}

// start begins to take the time.
func (s *shedder) start(p *probe, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin(p, now)
}

// startLate is reserve and start for a request that is whole only now.
func (s *shedder) startLate(p *probe, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.over {
		return true // answered before it was
	}
	if !s.room() {
		return false
	}
	s.hold(p)
	s.begin(p, now)
	return true
}

func (s *shedder) begin(p *probe, now time.Time) {
	s.roll(now)
	p.started, p.at, p.epoch, p.gen = true, now, s.epoch, s.gen
	s.young++
}

// end gives back what p holds, once, and takes note of v.
func (s *shedder) end(p *probe, now time.Time, v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.over {
		return
	}
	p.over = true
	if !p.held {
		return
	}
	s.n--
	if !p.started {
		return
	}
	took := now.Sub(p.at)
	if v == byTime || v == slow {
		s.answers++
		s.pace += (took - s.pace) / 8
	}
	if p.epoch == s.epoch {
		if p.gen == s.gen {
			s.young--
		} else {
			s.older--
		}
		switch {
		case v == unknown:
		case v == slow || took > s.target:
			s.slow++
		case v == byTime:
			s.fast++
		}
	}
	s.roll(now)
}

// roll ends the window if it is over, and judges if there is enough to.
func (s *shedder) roll(now time.Time) {
	if s.began.IsZero() {
		s.began = now
	}
	if now.Sub(s.began) < s.window {
		return
	}
	// Whoever has waited for the whole window has waited for the target.
	all, bad := s.fast+s.slow+s.older, s.slow+s.older
	stuck := s.answers == 0 && s.n >= int(s.limit)
	switch {
	case all < min(enough, int(s.limit)) && !stuck:
		if s.rounds++; s.rounds == patience {
			s.fast, s.slow, s.rounds = 0, 0, 0
		}
		s.older += s.young
	case stuck, bad*10 > all:
		s.limit = max(1, fall*min(s.limit, float64(max(s.peak, 1))))
		s.epoch++
		s.fast, s.slow, s.rounds, s.older = 0, 0, 0, 0
	default:
		if s.peak >= int(s.limit) {
			s.limit = min(s.limit+1, unlimited)
		}
		s.fast, s.slow, s.rounds = 0, 0, 0
		s.older += s.young
	}
	s.gen++
	s.young, s.answers, s.peak, s.began = 0, 0, s.n, now
}

// state returns the bound, and when a refused request may come back.
func (s *shedder) state() (limit int, again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.limit), max(s.window, s.pace)
}

// An upload tells when the client has sent its body, before the end of it goes
// on. It does not if that is refused.
type upload struct {
	io.ReadCloser
	length int64 // as declared; negative if it is not known
	n      int64
	end    func() error
	ended  bool
	err    error
}

func (u *upload) Read(p []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	n, err := u.ReadCloser.Read(p)
	u.n += int64(n)
	if u.ended || err != io.EOF && (u.length < 0 || u.n < u.length) {
		return n, err
	}
	u.ended = true
	if u.err = u.end(); u.err != nil {
		return 0, u.err
	}
	return n, err
}
