package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/portal/mail"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/origin"
	"github.com/merlon-dev/merlon/record"
	"github.com/merlon-dev/merlon/secrets"
)

// How long a stopping server waits: for clients to notice, and for their
// requests to end.
const (
	drainIdle  = 5 * time.Second
	drainTotal = 30 * time.Second
)

// defaultRoom is how much all bodies together take while guards look at them.
const defaultRoom = 256 * merlon.MiB

// A Server listens, and hands every request to the newest [Gateway].
type Server struct {
	listen  config.Listen
	data    string
	pprof   bool
	log     *slog.Logger
	ledger  *ledger.Log
	metrics *Metrics
	tracer  *Tracer
	state   *State
	tapes   *record.Recorder
	record  record.Config
	inspect merlon.Size // all bodies together
	room    *merlon.Room
	stores  *Stores
	people  peopleSettings // that only a restart can change

	current  atomic.Pointer[Gateway]
	draining atomic.Bool
	reload   sync.Mutex
	closing  sync.WaitGroup // gateways that were replaced

	doors   []*door
	failed  chan error
	cancel  context.CancelFunc
	running context.Context
}

// A door is one listener and its server.
type door struct {
	name   string
	tcp    *net.TCPListener
	edge   *origin.Listener
	server *http.Server
	conns  atomic.Int64
}

// NewServer opens the event log, builds the first gateway and opens the
// listeners. The version is shown in metrics.
func NewServer(ctx context.Context, f *config.File, log *slog.Logger, version string) (*Server, error) {
	s := &Server{listen: f.Listen, data: f.Data, pprof: f.Telemetry.Pprof, record: f.Record, log: log, failed: make(chan error, 4),
		inspect: f.InspectMemory, room: merlon.NewRoom(cmp.Or(f.InspectMemory, defaultRoom))}
	// Wrong settings are told before anything is made on disk.
	g, err := New(f, s.env())
	if err = errors.Join(err, Startable(f)); err != nil {
		return nil, err
	}
	lc := f.Ledger
	lc.OnAlarm = func(e ledger.Event) { log.Error("event log", "alarm", e.Message) }
	if s.ledger, err = ledger.Open(f.Data, lc); err != nil {
		return nil, err
	}
	s.metrics = NewMetrics(s.ledger, version)
	s.running, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.open(ctx, f, g, version); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	s.admin(ledger.SysStartup, "Merlon started", map[string]string{"version": version, "config": f.Name()})
	return s, nil
}

func (s *Server) open(ctx context.Context, f *config.File, g *Gateway, version string) (err error) {
	if f.Telemetry.Traces != "" {
		if s.tracer, err = NewTracer(ctx, f.Telemetry.Traces, version); err != nil {
			return err
		}
	}
	if s.tapes, err = record.Open(f.Record, s.log); err != nil {
		return err
	}
	s.people = settingsOf(f)
	if s.state, err = openState(ctx, f, notified{bans: s.banned, counts: s.unshared}); err != nil {
		return err
	}
	if s.stores, err = OpenStores(f, s.state, s.log); err != nil {
		return err
	}
	if s.stores != nil {
		s.stores.hashes, s.stores.hasher = g.people.c.Password, g.people.hasher // what this machine can afford is measured once
		g.people.close()
	}
	// The first was only to see whether it can be built.
	if g, err = build(f, s.env(), g.wafs); err != nil {
		return err
	}
	g.wafs = nil
	s.metrics.Registry.MustRegister((*stateCounts)(s.state))
	if s.tapes != nil {
		s.metrics.Registry.MustRegister((*tapeCounts)(s.tapes))
	}
	g.env = s.env()
	if err := g.Start(s.running); err != nil {
		return err
	}
	s.current.Store(g)
	s.metrics.current.Store(g)
	return s.openDoors(ctx)
}

func (s *Server) env() Env {
	return Env{Log: s.log, Ledger: s.ledger, Metrics: s.metrics, Tracer: s.tracer, State: s.state, Tapes: s.tapes, Notify: s.notice, Stores: s.stores, Room: s.room,
		HTTPS: func() string { return s.Addr("https") }}
}

func (s *Server) openDoors(ctx context.Context) error {
	for _, d := range []struct {
		name, addr string
		secure     bool
		handler    http.Handler
	}{
		{"https", s.listen.HTTPS, true, http.HandlerFunc(s.serveSites)},
		{"http", s.listen.HTTP, false, http.HandlerFunc(s.serveRedirect)},
		{"insecure_http", s.listen.InsecureHTTP, false, http.HandlerFunc(s.serveSites)},
		{"admin", s.listen.Admin, !isLoopback(s.listen.Admin), s.adminHandler()},
	} {
		if d.addr == "" {
			continue
		}
		tcp, err := listen(ctx, d.addr)
		if err != nil {
			return fmt.Errorf("listen.%s %q: %w", d.name, d.addr, err)
		}
		s.doors = append(s.doors, s.newDoor(d.name, tcp, d.secure, d.handler))
	}
	return nil
}

func (s *Server) newDoor(name string, tcp *net.TCPListener, secure bool, h http.Handler) *door {
	d := &door{name: name, tcp: tcp}
	d.server = &http.Server{
		Handler:  s.current.Load().edge.Pace(s.drainer(h)),
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateNew:
				d.conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				d.conns.Add(-1)
			}
		},
	}
	s.current.Load().edge.Tune(d.server)
	var tc *tls.Config
	if secure {
		tc = s.current.Load().certs.TLSConfig()
		// Certificates and session keys come from the newest gateway.
		tc.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.current.Load().tls, nil
		}
	}
	d.edge = s.current.Load().edge.Listen(tcp, tc, s.framing)
	go func() {
		if err := d.server.Serve(d.edge); !errors.Is(err, http.ErrServerClosed) && !s.draining.Load() {
			s.failed <- fmt.Errorf("listen.%s: %w", name, err)
		}
	}()
	return d
}

// drainer tells clients to come back on a new connection while the server
// stops, and keeps every answer of Merlon's own from being cached or sniffed.
func (s *Server) drainer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() && r.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) serveSites(w http.ResponseWriter, r *http.Request) {
	g := s.current.Load()
	g.challenged.ServeHTTP(w, r)
}

func (s *Server) serveRedirect(w http.ResponseWriter, r *http.Request) {
	g := s.current.Load()
	addr := s.Addr("https")
	g.certs.HTTPChallenge(g.certs.Redirect(addr, func(r *merlon.Request, d merlon.Decision) {
		r.Record("certs", d)
		s.metrics.refusal("certs", d.Reason, d.Code())
		s.append(ledger.FromRequest(r, merlon.Outcome{Status: d.Code(), Guard: "certs"}, ledger.Traffic{}))
	})).ServeHTTP(w, r)
}

// framing records what was refused before it was a request. What was refused
// in the middle of one is in that request's own event.
func (s *Server) framing(f origin.Refusal) {
	s.metrics.refusal(f.Guard, f.Decision.Reason, f.Decision.Code())
	if f.Late {
		return
	}
	r := &merlon.Request{Request: &http.Request{Header: http.Header{}, URL: &url.URL{}}, ID: f.ID, Received: time.Now(), Client: f.Client.Addr()}
	r.Record(f.Guard, f.Decision)
	o := merlon.Outcome{Guard: f.Guard}
	if f.Answered {
		o.Status = f.Decision.Code()
	}
	e := ledger.FromRequest(r, o, ledger.Traffic{})
	if f.Count > 1 {
		e.Count = uint64(f.Count)
	}
	s.append(e)
}

func (s *Server) append(e ledger.Event) {
	if err := s.ledger.Append(e); err != nil && !errors.Is(err, ledger.ErrClosed) {
		s.log.Error("an event could not be recorded", "id", e.ID, "error", err)
	}
}

func (s *Server) admin(name, message string, attrs map[string]string) {
	s.append(ledger.Event{Time: time.Now(), Kind: ledger.Admin, Name: name, Message: message, Attrs: attrs})
}

// Reload builds a gateway from f and, if that succeeds, lets it take over. A
// configuration that cannot be used leaves the old one running. Listeners, the
// data folder and the event log stay as they are.
func (s *Server) Reload(f *config.File) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	err := s.swap(f)
	s.metrics.reload(err == nil)
	if err != nil {
		s.append(ledger.Event{Time: time.Now(), Kind: ledger.Alarm, Name: ledger.SysRestart,
			Message: "a changed configuration cannot be used; the old one goes on", Attrs: map[string]string{"error": err.Error()}})
		return err
	}
	s.admin(ledger.SysRestart, "configuration reloaded", map[string]string{"config": f.Name()})
	return nil
}

// fixed tells what f changes that only a restart can.
func (s *Server) fixed(f *config.File) error {
	var errs []error
	for _, c := range []struct{ setting, now, next string }{
		{"listen.https", s.listen.HTTPS, f.Listen.HTTPS},
		{"listen.http", s.listen.HTTP, f.Listen.HTTP},
		{"listen.admin", s.listen.Admin, f.Listen.Admin},
		{"listen.insecure_http", s.listen.InsecureHTTP, f.Listen.InsecureHTTP},
		{"data", s.data, f.Data},
		{"store", string(s.people.store), string(f.Store)},
		{"redis", string(s.people.redis), string(f.Redis)},
		{"key", string(s.people.key), string(f.Key)},
		{"lease", strconv.Itoa(s.people.lease), strconv.Itoa(f.Lease)},
	} {
		if c.now != c.next {
			errs = append(errs, merlon.BadSetting(c.setting, cmp.Or(c.next, "off"), "cannot be changed by a reload; restart Merlon"))
		}
	}
	if _, on := f.SignIn(); on && s.stores == nil || settingsOf(f).mail != s.people.mail || settingsOf(f).places != s.people.places {
		errs = append(errs, merlon.BadSetting("identity", "", "its mail and attempts.places, and whether people sign in, cannot be changed by a reload; restart Merlon"))
	}
	if f.InspectMemory != s.inspect {
		errs = append(errs, merlon.BadSetting("inspect_memory", f.InspectMemory.String(), "cannot be changed by a reload; restart Merlon"))
	}
	if f.Record != s.record {
		errs = append(errs, merlon.BadSetting("record", "", "cannot be changed by a reload; restart Merlon"))
	}
	return errors.Join(errs...)
}

func (s *Server) swap(f *config.File) error {
	// All mistakes are told, those in the rest of the file among them.
	g, err := New(f, s.env())
	if err = errors.Join(s.fixed(f), err); err != nil {
		return err
	}
	if err := g.Start(s.running); err != nil {
		g.Close(s.running) // health checks may have begun
		return err
	}
	old := s.current.Swap(g)
	s.metrics.current.Store(g)
	s.closing.Go(func() {
		ctx, cancel := context.WithTimeout(s.running, time.Hour) // long downloads go on under the old rules
		defer cancel()
		old.Close(ctx)
	})
	return nil
}

// Gateway returns the gateway that serves now.
func (s *Server) Gateway() *Gateway { return s.current.Load() }

// Addr returns the address of the listener "https", "http", "admin" or
// "insecure_http"; empty if it is off.
func (s *Server) Addr(name string) string {
	for _, d := range s.doors {
		if d.name == name {
			return d.tcp.Addr().String()
		}
	}
	return ""
}

// Wait returns when ctx is done, or with an error when a listener fails.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// Shutdown stops without losing a request: new connections are left to
// another Merlon on the same port if there is one, clients on open ones are
// told to come back on a new connection, and what is in flight is answered,
// for at most half a minute.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	for _, d := range s.doors {
		if err := yield(d.tcp); err != nil {
			s.log.Debug("connections in the queue may be reset", "listener", d.name, "error", err)
		}
	}
	time.Sleep(settle)
	ctx, cancel := context.WithTimeout(ctx, drainTotal)
	defer cancel()
	var errs []error
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, d := range s.doors {
		wg.Go(func() {
			if err := d.edge.Drain(); err != nil {
				s.log.Debug("closing a listener", "listener", d.name, "error", err)
			}
			if d.name != "admin" { // whoever scrapes metrics asks again
				d.waitIdle(ctx)
			}
			// Drain has closed the listener already.
			if err := d.server.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
				mu.Lock()
				errs = append(errs, fmt.Errorf("listen.%s: %w", d.name, err))
				mu.Unlock()
				_ = d.server.Close()
			}
		})
	}
	if g := s.current.Load(); g != nil {
		wg.Go(func() { g.Close(ctx) })
	}
	wg.Wait()
	s.admin(ledger.SysShutdown, "Merlon stopped", nil)
	errs = append(errs, s.shut())
	return errors.Join(errs...)
}

// waitIdle gives clients on open connections the time for one more request,
// whose answer says that the connection closes: closing a kept connection
// under a request that is already on its way would lose it.
func (d *door) waitIdle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainIdle)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for d.conns.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shut ends what was opened, the event log last.
func (s *Server) shut() error {
	for _, d := range s.doors {
		_ = d.server.Close()
		_ = d.tcp.Close()
	}
	s.cancel()
	s.closing.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(s.tracer.Close(ctx), s.tapes.Close(), s.stores.Close(ctx), s.state.Close(ctx), s.ledger.Close())
}

// peopleSettings are what only a restart can change about people.
type peopleSettings struct {
	store, redis, key secrets.Ref
	mail              mail.Config
	places, lease     int
}

func settingsOf(f *config.File) peopleSettings {
	c, _ := f.SignIn()
	return peopleSettings{f.Store, f.Redis, f.Key, c.Mail, c.Attempts.Places, f.Lease}
}

// Stores are what is remembered of people; nil if nobody signs in.
func (s *Server) Stores() *Stores { return s.stores }
