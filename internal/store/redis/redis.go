// Package redis connects to Redis or Valkey, and keeps there what replicas count
// together: limits, and how many of them there are. What else they share is in
// package live.
//
// Each thing that must not be done by halves is one script on one key, so that
// it holds in a cluster too. What Redis itself forgets is gone: a replica of
// it that takes over may not have the last second.
package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/secrets"
)

// stalled is how long a connection may not answer before it is given up.
const stalled = 3 * time.Second

// known are the words in a URL's query, but skip_verify: a server that cannot
// prove who it is gets no sessions.
var known = []string{"addr", "ca", "client_name", "db", "dial_timeout", "master_set", "protocol", "sentinel_auth", "write_timeout"}

// Dial connects to the server, Sentinels or cluster of a URL:
//
//	redis://user:password@host:port/0                    in the clear, on this machine only
//	rediss://user:password@host:port/0                   over TLS
//	rediss://user:password@host:port/0?ca=/etc/ca.pem    over TLS, with an authority of one's own
//	unix:///run/redis.sock                               on this machine
//	rediss://host:26379?addr=host2:26379&master_set=main by Sentinel
//	rediss://host:6379?addr=host2:6379                   a cluster, found from either
//
// The user is one of the servers' ACL. Sentinels are asked without a user,
// unless the query has sentinel_auth=same. Errors do not repeat the URL.
func Dial(at secrets.Secret) (rueidis.Client, error) {
	o, err := options(at)
	if err != nil {
		return nil, err
	}
	if o.ConnWriteTimeout == 0 {
		o.ConnWriteTimeout = stalled
	}
	return rueidis.NewClient(o)
}

// Check says what of a URL, or of the file with authorities that it names, is
// wrong. It connects to nothing.
func Check(at secrets.Secret) error {
	_, err := options(at)
	return err
}

// options reads and checks a URL.
func options(at secrets.Secret) (rueidis.ClientOption, error) {
	const form = "must be a URL such as rediss://user:password@host:6379"
	var none rueidis.ClientOption
	u, err := url.Parse(at.Reveal())
	if err != nil {
		return none, errors.New(form)
	}
	for name := range u.Query() {
		if !slices.Contains(known, name) {
			return none, fmt.Errorf("must not have %q in its query; it knows %s", name, strings.Join(known, ", "))
		}
	}
	o, err := rueidis.ParseURL(at.Reveal())
	if err != nil {
		return none, errors.New(form)
	}
	if o.TLSConfig != nil {
		o.TLSConfig.MinVersion = tls.VersionTLS12
	}
	if file := u.Query().Get("ca"); file != "" {
		if o.TLSConfig == nil {
			return none, errors.New("must begin with rediss:// if it has a ca")
		}
		if o.TLSConfig.RootCAs, err = authorities(file); err != nil {
			return none, err
		}
	}
	if o.TLSConfig == nil && u.Scheme != "unix" {
		for _, addr := range o.InitAddress {
			if !onThisMachine(addr) {
				return none, errors.New("must begin with rediss://, since what is kept there may not leave this machine in the clear")
			}
		}
	}
	o.Sentinel.TLSConfig = o.TLSConfig
	if u.Query().Get("sentinel_auth") == "same" {
		o.Sentinel.Username, o.Sentinel.Password = o.Username, o.Password
	}
	o.DisableCache = true // sessions have a cache with a bounded age; this one has none
	return o, nil
}

func onThisMachine(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func authorities(file string) (*x509.CertPool, error) {
	const rule = "must name a file with certificates in PEM form as its ca"
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf(rule+": %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf(rule+", not %s", file)
	}
	return pool, nil
}
