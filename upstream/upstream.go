// Package upstream passes a request to one of its backends and the answer
// back, and is the only writer of what a backend is told about the client:
// X-Forwarded-*, X-Real-Ip, X-Request-Id and Merlon-*. Whatever a client sends
// under those names is dropped, and a backend is never asked in cleartext or
// with an unverified certificate unless the configuration names that insecure.
//
// It judges no content, and it cannot know whether a backend also answers
// those who go around the gateway: give backends a client certificate to ask
// for (tls.cert), a Unix socket or a loopback port.
//
// # What a backend is told
//
// X-Forwarded-For and X-Real-Ip hold the client's address, one value;
// X-Forwarded-Proto "https" or "http"; X-Forwarded-Host the name that was asked
// for; X-Forwarded-Prefix what strip_prefix took away; X-Request-Id the
// request's id; Merlon-Timeout, if a guard bounds the time for the answer, the
// seconds that are left of it: "4.250". For a proved identity, Merlon-Subject,
// Merlon-Groups, Merlon-Roles and Merlon-Tenant hold its subject and, separated
// by commas, its groups and roles, and its tenant if it has one. In those four
// "%", "," and every byte that is not printable ASCII is percent-encoded.
//
// # What is asked again
//
// A request goes to another backend, three at most, only if no connection to
// the first could be made and none of its body was read. A request that may
// have reached a backend is not sent again; net/http's own rule stays: if a kept
// connection turns out closed, a request without body and with a safe method
// is sent on a new one.
package upstream

import (
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

// Name is what verdicts about a backend's failure are recorded under.
const Name = "upstream"

const (
	// Unreachable: no connection to the backend could be made. Check that it
	// runs and listens where the upstream setting says.
	Unreachable merlon.Reason = "upstream-unreachable"
	// Timeout: the backend did not connect, answer or go on in time. See
	// whether it hangs; upstream.timeouts says how long it may take.
	Timeout merlon.Reason = "upstream-timeout"
	// BadResponse: what the backend sent is not a valid or safe HTTP answer.
	// The cause names what was wrong; the backend must be mended.
	BadResponse merlon.Reason = "upstream-bad-response"
	// Closed: the backend closed the connection before its answer was
	// complete. Look for a crash, a too short keep-alive or a refused client
	// certificate in its log.
	Closed merlon.Reason = "upstream-closed"
	// BadTLS: the backend's certificate could not be verified, or the two
	// sides agree on no TLS. There is no retry in cleartext; mend upstream.tls.
	BadTLS merlon.Reason = "upstream-tls"
	// NoHealthyBackend: the health checks found every backend down. See what
	// the health path answers.
	NoHealthyBackend merlon.Reason = "no-healthy-upstream"
	// Busy: every backend already has as many requests in flight as
	// upstream.max_in_flight allows.
	Busy merlon.Reason = "upstream-busy"
	// ClientClosed: the client went away before it was answered. Nothing is
	// wrong unless it happens often; then the backend may be slow.
	ClientClosed merlon.Reason = "client-closed"
	// Unsupported: the request's method, CONNECT, cannot be passed on.
	Unsupported merlon.Reason = "upstream-unsupported"
)

// StatusClientClosed is the status of [ClientClosed]. It is for the log only;
// there is nobody to send it to.
const StatusClientClosed = 499

// Config says where a site's or a route's backends are and how they are
// asked. In YAML it is one address, a list of them, or this mapping.
type Config struct {
	// To lists the backends, 1 to 128 of them. Each has one of the forms
	// "https://host[:port]", "http://host[:port]", "unix:/path/of/socket",
	// "h2c://host[:port]" or "h2c+unix:/path" (cleartext HTTP/2, for gRPC).
	// Example: [https://10.0.0.5:8443, https://10.0.0.6:8443].
	To []string `yaml:"to,omitempty"`
	// InsecureCleartext lets http:// and h2c:// leave this machine, where
	// anybody on the way can read and change what passes. Default false: only
	// loopback addresses and Unix sockets. Example: true.
	InsecureCleartext bool `yaml:"insecure_cleartext,omitempty"`
	// TLS says how https:// backends are verified, and what Merlon shows them.
	TLS TLS `yaml:"tls,omitempty"`
	// Host is the Host that backends are told: empty for the one the client
	// asked for, "upstream" for the backend's own, or a name. Default empty.
	// Example: upstream.
	Host string `yaml:"host,omitempty"`
	// StripPrefix is taken off the path. It begins and does not end with "/";
	// paths outside it pass unchanged. Default empty. Example: /api.
	StripPrefix string `yaml:"strip_prefix,omitempty"`
	// AddPrefix is put before the path, after StripPrefix has been taken off.
	// It begins and does not end with "/". Default empty. Example: /v2.
	AddPrefix string `yaml:"add_prefix,omitempty"`
	// Health turns on active health checks. Default absent: a backend that
	// cannot be connected to is only left alone for some seconds while there
	// are others.
	Health *Health `yaml:"health,omitempty"`
	// Sticky keeps a browser at the backend that answered it first, as long
	// as that one is healthy. Default absent.
	Sticky *Sticky `yaml:"sticky,omitempty"`
	// Timeouts bound how long a backend may take.
	Timeouts Timeouts `yaml:"timeouts,omitempty"`
	// MaxInFlight bounds the requests, open WebSockets included, that one
	// backend works on at a time; more are refused with 503. 1 to 1000000,
	// default 10000. Example: 200.
	MaxInFlight int `yaml:"max_in_flight,omitempty"`
	// MaxResponseHeader bounds the header of an answer. 1KiB to 1MiB, default
	// 64KiB. Example: 256KiB.
	MaxResponseHeader merlon.Size `yaml:"max_response_header,omitempty"`
	// NoCompression passes answers on as the backend encoded them. Default
	// false: text is compressed for clients that take zstd, br or gzip, unless
	// the answer may mix secrets with input (BREACH). Example: true.
	NoCompression bool `yaml:"no_compression,omitempty"`

	form form // how it was written, for the place of a mistake
}

// TLS says how https:// backends are verified, and what Merlon shows them.
// Files are read again when they change.
type TLS struct {
	// CA is a file of PEM certificates that backends' certificates must chain
	// to. Default: the system's. Example: /etc/merlon/internal-ca.pem.
	CA string `yaml:"ca,omitempty"`
	// ServerName is the name that a backend's certificate must be for.
	// Default: the host in its address. Example: api.internal.
	ServerName string `yaml:"server_name,omitempty"`
	// Cert is a file with the PEM certificate chain that Merlon shows to
	// backends (mTLS). Needs Key. Default none. Example: /etc/merlon/client.pem.
	Cert string `yaml:"cert,omitempty"`
	// Key is the file with the PEM key of Cert, not readable by others.
	// Default none. Example: /etc/merlon/client.key.
	Key string `yaml:"key,omitempty"`
	// Pins are hashes of public keys, "sha256/" and base64, of which one must
	// be in the verified chain. At most 16. Default none.
	// Example: [sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=].
	Pins []string `yaml:"pins,omitempty"`
	// MinVersion is the oldest TLS version used: "1.3" or "1.2". Default 1.3.
	MinVersion string `yaml:"min_version,omitempty"`
}

// Health says how backends are checked. A backend counts as healthy until
// checks have failed.
type Health struct {
	// Path is asked for with GET. Default empty: a connection is enough.
	// Example: /healthz.
	Path string `yaml:"path,omitempty"`
	// Host is the Host sent with Path. Default: the backend's own.
	// Example: shop.example.com.
	Host string `yaml:"host,omitempty"`
	// Status lists the answers that are healthy, 200 to 599. Default: 200 to
	// 399. Example: [200, 204].
	Status []int `yaml:"status,omitempty"`
	// Interval between checks, 100ms to 1h. Default 5s.
	Interval time.Duration `yaml:"interval,omitempty"`
	// Timeout of one check, 10ms to 1m. Default 2s.
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// UnhealthyAfter so many failed checks in a row, 1 to 100. Default 2.
	UnhealthyAfter int `yaml:"unhealthy_after,omitempty"`
	// HealthyAfter so many good checks in a row, 1 to 100. Default 1.
	HealthyAfter int `yaml:"healthy_after,omitempty"`
}

// Sticky names the cookie that keeps a browser at one backend. The cookie
// holds a keyed hash, never an address.
type Sticky struct {
	// Cookie is its name, which begins with "__Host-" or "__Http-Host-".
	// Default __Host-merlon-backend.
	Cookie string `yaml:"cookie,omitempty"`
	// Key is where the hash's key is. Default: a new one at each start and
	// reload, after which browsers are spread anew. Example: env:MERLON_STICKY.
	Key secrets.Ref `yaml:"key,omitempty"`
}

// Timeouts bound how long a backend may take. Each is 1ms to 24h.
type Timeouts struct {
	// Dial bounds connecting, and then the TLS handshake. Default 5s.
	Dial time.Duration `yaml:"dial,omitempty"`
	// ResponseHeader bounds the wait for an answer to begin, counted from
	// the end of the request's body. Default 60s. Example: 5m.
	ResponseHeader time.Duration `yaml:"response_header,omitempty"`
	// Stall bounds how long a backend may neither take the next part of a
	// request's body nor give the next part of an answer's. Default 60s.
	Stall time.Duration `yaml:"stall,omitempty"`
	// Stream is the same for event streams, gRPC and WebSockets, which may be
	// silent for long. Default 1h.
	Stream time.Duration `yaml:"stream,omitempty"`
	// Idle closes connections that nobody used for this long. It should be
	// shorter than the backend's own keep-alive. Default 4s, as many servers
	// use 5s.
	Idle time.Duration `yaml:"idle,omitempty"`
}
