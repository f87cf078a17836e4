package demo

import (
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"
)

// What the shop has only so much of: people's patience, kettles, its own time.

// workers is how many requests the shop works on at a time, as servers do that
// have a process for each.
//
// HOLE (deliberate): a worker waits for the rest of a request for as long as
// that takes.
const workers = 32

// worker runs h on a worker, when one is free.
func (s *Shop) worker(w http.ResponseWriter, r *http.Request, h http.Handler) {
	select {
	case s.workers <- struct{}{}:
		defer func() { <-s.workers }()
		h.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

// A report costs reportTime, and reportShare more for each that is made at the
// same time.
const (
	reportTime  = 150 * time.Millisecond
	reportShare = 10 * time.Millisecond
)

// A counter knows how many reports are being made.
type counter struct {
	mu  sync.Mutex
	now map[*int]bool // for each, the most that there were meanwhile
}

func (c *counter) begin() (most *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	most = new(int)
	if c.now == nil {
		c.now = map[*int]bool{}
	}
	c.now[most] = true
	for m := range c.now {
		*m = max(*m, len(c.now))
	}
	return most
}

func (c *counter) end(most *int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.now, most)
	return *most
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.now)
}

// yearReport is a HOLE (deliberate): each report slows all others down, and as
// many are made at the same time as are asked for.
func (s *Shop) yearReport(w http.ResponseWriter, r *http.Request) error {
	most := s.reports.begin()
	t := time.NewTimer(reportTime + time.Duration(s.reports.count()-1)*reportShare)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
		s.reports.end(most)
		return r.Context().Err()
	}
	return writeJSON(w, map[string]any{"report": "2026: 1,204 orders, €38,911.50. Best seller: O'Brien's mug.", "at_once": s.reports.end(most)})
}

// drop is a HOLE (deliberate): whoever asks gets a code, be it a script that
// asks all night.
func (s *Shop) drop(w http.ResponseWriter, r *http.Request) error {
	v := s.view(r, "The Friday drop")
	v.Data = "KETTLE-" + rand.Text()[:8]
	return s.render(w, http.StatusOK, "drop", v)
}

// leftovers are files that somebody forgot among the pages.
//
// HOLE (deliberate): only their names protect them, and scanners know those.
var leftovers = map[string]string{
	"/.env":            "/srv/shop/shop.env",
	leftExport("2024"): "/var/backups/customers.csv",
}

func leftExport(year string) string { return "/exports/customers-" + year + ".csv" }

func (s *Shop) leftover(w http.ResponseWriter, r *http.Request) error {
	text, ok := newMachine().read(leftovers[r.URL.Path])
	if !ok {
		return s.notFound(w, r)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	return nil
}
