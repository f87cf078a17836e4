package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/merlon-dev/merlon"
)

var (
	errStalled    = errors.New("the backend neither took nor gave anything for too long")
	errClientGone = errors.New("the client went away")
)

// decide words a failure as a decision.
func (e *exchange) decide(err error) merlon.Decision {
	if errors.Is(err, errRefused) && e.refused != nil {
		return *e.refused
	}
	d := e.cause(err)
	if d.Err == nil {
		d.Err = err
	}
	if len(d.Findings) == 0 && e.backend != nil && d.Reason != ClientClosed {
		d.Findings = []merlon.Finding{{Part: "backend " + e.backend.addr.text, Message: message(err)}}
	}
	return d
}

func message(err error) string {
	if b, ok := errors.AsType[*backendError](err); ok {
		err = b.err
	}
	const longest = 300
	text := err.Error()
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return text
}

// cause looks for who is to blame, first at what the exchange itself knows.
func (e *exchange) cause(err error) merlon.Decision {
	if late, ok := errors.AsType[*merlon.LateRefusal](err); ok {
		return late.Decision
	}
	// A guard may end a request by the cause of its context: its time is up, say.
	if late, ok := errors.AsType[*merlon.LateRefusal](context.Cause(e.r.Context())); ok {
		return late.Decision
	}
	body := e.upload.failure()
	if _, ok := errors.AsType[*merlon.LateRefusal](body); ok {
		return merlon.BodyFailed(body)
	}
	own := context.Cause(e.ctx)
	switch {
	case errors.Is(own, errStalled):
		return because(http.StatusGatewayTimeout, Timeout, errStalled)
	case errors.Is(own, errInterim):
		return because(http.StatusBadGateway, BadResponse, errInterim)
	case e.r.Context().Err() != nil, errors.Is(err, errClientGone):
		return merlon.Refuse(StatusClientClosed, ClientClosed)
	case body != nil:
		return merlon.BodyFailed(body)
	case errors.Is(err, errConnect):
		return merlon.Refuse(http.StatusNotImplemented, Unsupported)
	case errors.Is(err, errNoneHealthy):
		d := merlon.Refuse(http.StatusServiceUnavailable, NoHealthyBackend)
		d.Header = e.pool.retryAfter(err)
		return d
	case errors.Is(err, errBusy):
		d := merlon.Refuse(http.StatusServiceUnavailable, Busy)
		d.Header = e.pool.retryAfter(err)
		return d
	}
	status, reason := classify(err)
	return merlon.Refuse(status, reason)
}

func because(status int, reason merlon.Reason, err error) merlon.Decision {
	d := merlon.Refuse(status, reason)
	d.Err = err
	return d
}

// classify tells the ways apart in which net/http says that a backend failed.
func classify(err error) (status int, reason merlon.Reason) {
	if timedOut(err) {
		return http.StatusGatewayTimeout, Timeout
	}
	if _, ok := errors.AsType[dialError](err); ok {
		return http.StatusBadGateway, Unreachable
	}
	if handshakeFailed(err) {
		return http.StatusBadGateway, BadTLS
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok || strings.Contains(err.Error(), "remote error: tls: ") {
		return http.StatusBadGateway, BadTLS
	}
	for _, closed := range [...]error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, io.ErrClosedPipe} {
		if errors.Is(err, closed) {
			return http.StatusBadGateway, Closed
		}
	}
	// net/http and its HTTP/2 do not export these.
	for _, text := range [...]string{"server closed idle connection", "GOAWAY", "client connection lost", "stream error", "client connection force closed", "client conn could not be established", "client conn is closed"} {
		if strings.Contains(err.Error(), text) {
			return http.StatusBadGateway, Closed
		}
	}
	return http.StatusBadGateway, BadResponse
}

func timedOut(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// handshakeFailed reports whether TLS failed on our side, before anything else
// was sent.
func handshakeFailed(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	return errors.Is(err, errNotPinned) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") ||
		strings.Contains(err.Error(), "TLS handshake timeout")
}

// neverLeft reports whether err came before any byte of the request was sent.
func neverLeft(err error) bool {
	if _, ok := errors.AsType[dialError](err); ok {
		return true
	}
	return handshakeFailed(err)
}
