// Package demo is a small shop that has the holes which backend security
// checklists name, and the attacks that go through them, each with the
// legitimate use that it must be told apart from.
//
// It promises that nothing it is made to do leaves it: commands run on a
// pretend machine, addresses are fetched from a pretend network, files come
// from a pretend disk and the database lives in memory. It is not safe in any
// other respect, on purpose: never put it where others can reach it, and never
// type a real password into it.
package demo

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
)

// maxForm bounds what the shop reads of a request's body.
const maxForm = 64 << 10

// A Shop is the holed shop.
//
// It is an [http.Handler] full of deliberate holes. Listen on loopback only:
// a request that arrived on any other address is answered with 403. Even there
// its pages can be made to run scripts, so cookies that other programs set for
// the same host name are not safe from it while it runs.
type Shop struct {
	db    database
	mux   *http.ServeMux
	pages pages
	fetch *http.Client // in the pretend network

	workers chan struct{} // one for each request that is worked on
	reports counter

	mu       sync.Mutex
	sessions map[string]*session
	order    []string // tokens of sessions, oldest first
}

// New opens a shop with its opening stock. Its state is in memory and ends
// with [Shop.Close].
func New(ctx context.Context) (*Shop, error) {
	p, err := parsePages()
	if err != nil {
		return nil, err
	}
	db, err := openDB(ctx)
	if err != nil {
		return nil, err
	}
	s := &Shop{
		db:       db,
		mux:      http.NewServeMux(),
		pages:    p,
		fetch:    &http.Client{Transport: pretendNet{}},
		workers:  make(chan struct{}, workers),
		sessions: map[string]*session{},
	}
	if err := s.Reset(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.routes()
	return s, nil
}

// Close ends the shop and forgets everything in it.
func (s *Shop) Close() error { return s.db.Close() }

// Reset puts everything back to how it was when the shop opened.
func (s *Shop) Reset(ctx context.Context) error {
	if err := stock(ctx, s.db); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions, s.order = map[string]*session{}, nil
	return nil
}

func (s *Shop) routes() {
	page := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	s.mux.Handle("GET /static/", staticFiles())
	page("GET /{$}", s.home)
	page("GET /product/{slug}", s.product)
	page("POST /product/{slug}/reviews", s.review)
	page("POST /reviews/{id}/delete", s.deleteReview)
	page("GET /search", s.search)
	page("GET /login", s.loginForm)
	page("POST /login", s.login)
	page("GET /register", s.registerForm)
	page("POST /register", s.register)
	page("POST /logout", s.logout)
	page("GET /account", s.account)
	page("GET /transfer", s.transfer)
	page("POST /transfer", s.transfer)
	page("POST /buy", s.buy)
	page("GET /orders/{id}", s.orderPage)
	page("GET /admin", s.admin)
	page("GET /tools", s.tools)
	page("POST /tools/run", s.runForm)
	page("POST /tools/ping", s.ping)
	page("POST /tools/reset", s.resetForm)
	page("POST /api/tools/run", s.runAPI)
	page("GET /import", s.importForm)
	page("GET /import/picture", s.importPicture)
	page("POST /api/import", s.importAPI)
	page("GET /download", s.download)
	page("GET /api/members", s.members)
	page("GET /api/stock", s.stockLevel)
	page("POST /api/token", s.token)
	page("GET /api/office/customers", s.customers)
	page("GET /api/report", s.yearReport)
	page("GET /drop", s.drop)
	for path := range leftovers {
		page("GET "+path, s.leftover)
	}
	page("GET /holes", s.holes)
	page("/", s.notFound)
}

// ServeHTTP serves the shop to connections that arrived on loopback.
func (s *Shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !onLoopback(r) {
		http.Error(w, "the demo shop is full of deliberate holes and answers on loopback only", http.StatusForbidden)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	s.worker(w, r, s.mux)
}

// onLoopback reports whether the connection's own end is on loopback or is no
// network address at all.
func onLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || strings.HasPrefix(addr.Network(), "unix") {
		return true
	}
	host, _, err := net.SplitHostPort(addr.String())
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}
