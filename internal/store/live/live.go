// Package live keeps in Redis or Valkey what is remembered for a while of those
// who come, so that all replicas know it: sessions, failed tries, bans, kept
// forms, and what may come once only.
//
// Each thing that must not be done by halves is one script on one key, so that
// it holds in a cluster too. What Redis itself forgets is gone: a replica of
// it that takes over may not have the last second, so that a log-out may be
// lost; what an account's ValidFrom ended stays ended.
package live

import "github.com/redis/rueidis"

// A Link returns the client of a server, which must not be closed, or an error
// as long as there is none: a server need not be there when a process starts.
type Link func() (rueidis.Client, error)

// Connected is the Link of a client that there is.
func Connected(c rueidis.Client) Link {
	return func() (rueidis.Client, error) { return c, nil }
}

// Rights are what the one ACL user of a gateway needs for all that this package
// keeps, beside those of holding a connection. Key patterns of other programs
// that use the same server must not begin with merlon: as well.
const Rights = SessionRights + " " + TriesRights + " " + SeenRights + " " + KeptRights + " " + BanRights
