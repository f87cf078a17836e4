package waf_test

import (
	"io"
	"strings"

	"github.com/merlon-dev/merlon"
)

// setBody gives a request a body of any bytes.
func setBody(r *merlon.Request, body string) {
	r.Request.Body = io.NopCloser(strings.NewReader(body))
	r.Request.ContentLength = int64(len(body))
}
