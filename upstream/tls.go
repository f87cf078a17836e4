package upstream

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/merlon-dev/merlon"
)

// config builds the TLS configuration for one backend from the files as they
// are now. Certificates are always verified.
func (t TLS) config() (*tls.Config, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: t.ServerName}
	if t.MinVersion == "1.2" {
		tc.MinVersion = tls.VersionTLS12
	}
	var errs []error
	if t.CA != "" {
		pool, err := loadCA(t.CA)
		if err != nil {
			errs = append(errs, merlon.BadSetting("tls.ca", t.CA, err.Error()))
		}
		tc.RootCAs = pool
	}
	if t.Cert != "" && t.Key != "" {
		cert, err := loadCert(t.Cert, t.Key)
		if err != nil {
			errs = append(errs, merlon.BadSetting("tls.cert", t.Cert, err.Error()))
		}
		tc.Certificates = []tls.Certificate{cert}
	}
	if len(t.Pins) > 0 {
		verify, err := t.pinned()
		if err != nil {
			errs = append(errs, err)
		}
		tc.VerifyConnection = verify
	}
	return tc, errors.Join(errs...)
}

func loadCA(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("must hold at least one PEM certificate")
	}
	return pool, nil
}

func loadCert(certFile, keyFile string) (tls.Certificate, error) {
	info, err := os.Stat(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return tls.Certificate{}, fmt.Errorf("%s: must not be readable by others (chmod o-rwx)", keyFile)
	}
	return tls.LoadX509KeyPair(certFile, keyFile)
}

var errNotPinned = errors.New("tls: no certificate in the backend's verified chain has a pinned key")

// pinned returns a check that comes after the ordinary verification. It also
// runs for resumed connections, which VerifyPeerCertificate does not.
func (t TLS) pinned() (func(tls.ConnectionState) error, error) {
	pins := map[[sha256.Size]byte]bool{}
	for i, text := range t.Pins {
		pin, err := parsePin(text)
		if err != nil {
			return nil, merlon.BadSetting(fmt.Sprintf("tls.pins[%d]", i), text, err.Error())
		}
		pins[pin] = true
	}
	return func(cs tls.ConnectionState) error {
		for _, chain := range cs.VerifiedChains {
			for _, cert := range chain {
				if pins[sha256.Sum256(cert.RawSubjectPublicKeyInfo)] {
					return nil
				}
			}
		}
		return errNotPinned
	}, nil
}

// newTransport returns the connections to one backend. There is no proxy from
// the environment: what is asked is what the configuration says.
func (c *Config) newTransport(a address, tc *tls.Config) *http.Transport {
	var protocols http.Protocols
	switch {
	case a.h2c:
		protocols.SetUnencryptedHTTP2(true)
	case a.scheme == "https":
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	default:
		protocols.SetHTTP1(true)
	}
	return &http.Transport{
		DialContext:            dialer(a, c.Timeouts.Dial),
		TLSClientConfig:        tc,
		TLSHandshakeTimeout:    c.Timeouts.Dial,
		Protocols:              &protocols,
		DisableCompression:     true, // what the client accepts passes as it is
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        c.Timeouts.Idle,
		ResponseHeaderTimeout:  c.Timeouts.ResponseHeader,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: int64(c.MaxResponseHeader),
		HTTP2: &http.HTTP2Config{
			// What one slow client may leave in memory.
			MaxReceiveBufferPerStream: 512 << 10,
			SendPingTimeout:           30 * time.Second,
			PingTimeout:               10 * time.Second,
			WriteByteTimeout:          c.Timeouts.Stall,
		},
	}
}

// A dialError is a failure before any byte of a request was sent.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

func dialer(a address, timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout}
	network, fixed := "tcp", ""
	if a.socket != "" {
		network, fixed = "unix", a.socket
	} else if a.scheme == "http" && a.loopback() {
		d.Control = onlyLoopback
	}
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		if fixed != "" {
			addr = fixed
		}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, dialError{err}
		}
		return conn, nil
	}
}

// onlyLoopback holds "localhost" to its word, whatever the resolver says.
func onlyLoopback(_, addr string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || !ap.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%s is not a loopback address, and cleartext may not leave this machine", addr)
	}
	return nil
}

// A fileStamp tells whether a file was replaced or rewritten.
type fileStamp struct {
	size int64
	time time.Time
}

// stamp looks at the TLS files. A file that cannot be seen has the zero stamp.
func (t TLS) stamp() (s [3]fileStamp) {
	for i, name := range []string{t.CA, t.Cert, t.Key} {
		if name == "" {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			s[i] = fileStamp{info.Size(), info.ModTime()}
		}
	}
	return s
}

// watchFiles renews the connections' TLS configuration when its files change.
// Files that cannot be used, such as a certificate whose key is still to be
// written, leave the old ones in use and are looked at again.
func (p *Pool) watchFiles(ctx context.Context, last [3]fileStamp) {
	tick := time.NewTicker(p.fileCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := p.c.TLS.stamp()
		if now == last {
			continue
		}
		tc, err := p.c.TLS.config()
		if err != nil {
			p.tlsErr.Store(&err)
			continue
		}
		p.tlsErr.Store(nil)
		last = now
		for _, b := range p.backends {
			if b.addr.scheme == "https" {
				old := b.transport.Swap(p.c.newTransport(b.addr, tc.Clone()))
				old.CloseIdleConnections()
			}
		}
	}
}
