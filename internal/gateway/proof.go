package gateway

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
)

const (
	// askAgain is how often a connection that stays open is asked for its proof
	// again, where nobody tells when that ends: keys, passwords, certificates.
	// Those who prove it believe what they know for a second.
	askAgain = 250 * time.Millisecond
	// unknown is how long it goes on while that cannot be found out.
	unknown = 30 * time.Second
)

// watch ends connections that stay open when the proof does that let them in:
// WebSockets, calls of gRPC, and event streams, which are known as such when
// the upstream answers. It must be called before the proof is taken out of the
// request.
func (e *exchange) watch() (stop func()) {
	id := e.r.Identity
	if id == nil {
		return func() {}
	}
	var as http.Request // as it came
	if id.Done == nil {
		as = *e.r.Request
		as.Header, as.Body = as.Header.Clone(), http.NoBody
	}
	ctx, cancel := context.WithCancel(e.r.Context())
	e.r.Request = e.r.Request.WithContext(ctx)
	e.proofEnds = sync.OnceFunc(func() {
		go func() {
			defer cancel()
			if id.Done == nil {
				e.untilUnproved(ctx, &as)
				return
			}
			select {
			case <-id.Done:
			case <-ctx.Done():
			}
		}()
	})
	if e.r.Header["Upgrade"] != nil || strings.HasPrefix(e.r.Header.Get("Content-Type"), "application/grpc") {
		e.proofEnds()
	}
	return cancel
}

// untilUnproved returns when the request proves somebody else, or nobody who
// may come in here, or when ctx is done. The newest identity and access guards
// are not asked, but those that let it in: a reload leaves it open.
func (e *exchange) untilUnproved(ctx context.Context, as *http.Request) {
	r := merlon.NewRequest(as)
	r.Client, r.Site, r.Route, r.Path = e.r.Client, e.r.Site, e.r.Route, e.r.Path
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	known := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.Identity, r.Received = nil, time.Now()
		d := e.g.people.guard.Check(r)
		if d.Passed() && r.Identity != nil && slices.Contains(e.route.guards, "access") {
			d = e.route.access.Check(r)
		}
		switch {
		case d.Passed() && r.Identity != nil && r.Identity.Subject == e.r.Identity.Subject:
			known = time.Now()
		case d.Code() == http.StatusServiceUnavailable && time.Since(known) < unknown:
		default:
			return
		}
	}
}
