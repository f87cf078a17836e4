// Package redis keeps what several replicas share in Redis or Valkey: for now
// the sessions of people who are logged in.
//
// Each thing that must not be done by halves is one script on one key, so that
// it holds in a cluster too. What Redis itself forgets is gone: a replica of
// it that takes over may not have the last second, so that a log-out may be
// lost; what an account's ValidFrom ended stays ended.
package redis

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/secrets"
)

// stalled is how long a connection may not answer before it is given up.
const stalled = 3 * time.Second

// Dial connects to the server, Sentinels or cluster of a URL:
//
//	redis://user:password@host:port/0                    in the clear
//	rediss://user:password@host:port/0                   over TLS
//	unix:///run/redis.sock                               on this machine
//	rediss://host:26379?addr=host2:26379&master_set=main by Sentinel
//	rediss://host:6379?addr=host2:6379                   a cluster, found from either
//
// The user is one of the server's ACL. What may be said in the query is what
// rueidis.ParseURL reads, except skip_verify: a server that cannot prove who
// it is gets no sessions. Errors do not repeat the URL.
func Dial(at secrets.Secret) (rueidis.Client, error) {
	u, err := url.Parse(at.Reveal())
	if err != nil {
		return nil, errors.New("must be a URL such as rediss://user:password@host:6379")
	}
	if u.Query().Has("skip_verify") {
		return nil, errors.New("must not have skip_verify: have the server's certificate signed by an authority that this machine trusts")
	}
	o, err := rueidis.ParseURL(at.Reveal())
	if err != nil {
		return nil, fmt.Errorf("must be a URL such as rediss://user:password@host:6379: scheme %q and its query do not fit", u.Scheme)
	}
	if o.ConnWriteTimeout == 0 {
		o.ConnWriteTimeout = stalled
	}
	if o.Sentinel.MasterSet != "" {
		o.Sentinel.Username, o.Sentinel.Password, o.Sentinel.TLSConfig = o.Username, o.Password, o.TLSConfig
	}
	o.DisableCache = true // sessions have a cache with a bounded age; this one has none
	return rueidis.NewClient(o)
}
