package origin

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// Pace puts the floors against slow clients on HTTP/2 requests, whose streams
// share a connection and so cannot be timed there. HTTP/1 requests, timed by
// their connection, pass untouched. A body that arrives too slowly fails with
// a [merlon.LateRefusal], for which [merlon.BodyFailed] answers 408; gRPC
// streams, which may be quiet for hours, are left to HTTP/2's pings. A client
// that does not take its answer has its stream reset.
func (e *Edge) Pace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		if hr.ProtoMajor != 2 {
			next.ServeHTTP(w, hr)
			return
		}
		if hr.Body != nil && hr.Body != http.NoBody && !strings.HasPrefix(hr.Header.Get("Content-Type"), "application/grpc") {
			hr.Body = &pacedBody{ReadCloser: hr.Body, e: e, patience: e.c.SlowGrace}
		}
		pw := &pacedWriter{ResponseWriter: w, rc: http.NewResponseController(w), grace: e.c.SlowGrace, rate: e.c.MinRate}
		next.ServeHTTP(pw, hr)
		// The server sends the rest when the handler is gone.
		_ = pw.rc.SetWriteDeadline(time.Now().Add(e.c.SlowGrace)) // fails where there is nothing left to bound
	})
}

// watch calls abort if do takes longer than d, and reports whether it did. No
// call of abort is left when watch returns.
func watch(d time.Duration, abort func(), do func()) bool {
	fired := make(chan struct{})
	t := time.AfterFunc(d, func() {
		abort()
		close(fired)
	})
	do()
	if t.Stop() {
		return false
	}
	<-fired
	return true
}

type pacedBody struct {
	io.ReadCloser
	e        *Edge
	patience time.Duration
	err      error
}

func (b *pacedBody) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	began := time.Now()
	late := watch(max(b.patience, 0), func() { _ = b.ReadCloser.Close() }, func() { n, err = b.ReadCloser.Read(p) })
	waited := time.Since(began) - time.Duration(n)*time.Second/time.Duration(b.e.c.MinRate)
	b.patience = min(b.e.c.SlowGrace, b.patience-waited)
	if late {
		d := merlon.Refuse(http.StatusRequestTimeout, SlowBody)
		d.Close = true
		d.Findings = []merlon.Finding{{Rule: "rate", Part: "body", Message: "a body must arrive at min_rate, after slow_grace"}}
		b.err = &merlon.LateRefusal{Verdict: merlon.Verdict{Guard: name, Decision: d}}
		return n, b.err
	}
	return n, err
}

type pacedWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	grace time.Duration
	rate  merlon.Size
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *pacedWriter) abort() { _ = w.rc.SetWriteDeadline(time.Unix(1, 0)) } // fails if the stream is gone

func (w *pacedWriter) Write(p []byte) (n int, err error) {
	watch(w.grace+time.Duration(len(p))*time.Second/time.Duration(w.rate), w.abort, func() { n, err = w.ResponseWriter.Write(p) })
	return n, err
}

// FlushError sends what is buffered.
func (w *pacedWriter) FlushError() (err error) {
	watch(w.grace, w.abort, func() { err = w.rc.Flush() })
	return err
}

// Flush sends what is buffered.
func (w *pacedWriter) Flush() { _ = w.FlushError() } // http.Flusher cannot tell
