package upstream

import (
	"context"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// watchHealth checks one backend until ctx is done. One check is under way at
// a time, so that a hung backend costs one goroutine.
func (p *Pool) watchHealth(ctx context.Context, b *backend) {
	h := p.c.Health
	good, bad := 0, 0
	for {
		if err := p.checkHealth(ctx, b); err == nil {
			good, bad = good+1, 0
		} else {
			good, bad = 0, bad+1
		}
		if ctx.Err() != nil {
			return
		}
		switch {
		case bad >= h.UnhealthyAfter:
			b.down.Store(true)
		case good >= h.HealthyAfter:
			b.down.Store(false)
			b.connected()
		}
		// A tenth more or less, so that replicas do not all ask at once.
		wait := h.Interval + time.Duration((mathrand.Float64()-0.5)*0.2*float64(h.Interval))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (p *Pool) checkHealth(ctx context.Context, b *backend) error {
	h := p.c.Health
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	if h.Path == "" && b.addr.scheme == "http" {
		conn, err := b.transport.Load().DialContext(ctx, "tcp", withPort(b.addr))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	path := h.Path
	if path == "" {
		path = "/" // the answer does not matter, the handshake does
	}
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return err
	}
	u.Scheme, u.Host = b.addr.scheme, b.addr.host
	hr := (&http.Request{
		Method: http.MethodGet, URL: u, Host: h.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {"merlon-health"}, "Accept": {"*/*"}},
	}).WithContext(ctx)
	res, err := b.transport.Load().RoundTrip(hr)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	// Reading a little keeps the connection for the next check.
	_, err = io.CopyN(io.Discard, res.Body, 64<<10)
	if err != nil && err != io.EOF {
		return err
	}
	if h.Path == "" || slices.Contains(h.Status, res.StatusCode) ||
		len(h.Status) == 0 && res.StatusCode >= 200 && res.StatusCode < 400 {
		return nil
	}
	return fmt.Errorf("status %d", res.StatusCode)
}

func withPort(a address) string {
	u := url.URL{Host: a.host}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "80")
	}
	return a.host
}
