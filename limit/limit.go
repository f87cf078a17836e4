// Package limit bounds how much one client, user, key or whatever else requests
// are told apart by may ask for: how often, how much in a month, how many bytes,
// how much at once and how large, so that a flood from one place leaves the
// others their share.
//
// It counts in a [count.Store], which several processes may share; what
// [Concurrent] says is each process's own. It cannot help when the line itself
// is full, and what a client makes up, such as a header, tells nobody apart who
// does not want it: the limit by client address is always in front.
package limit

import (
	"net/netip"

	"github.com/merlon-dev/merlon"
)

// Config configures a [Guard]. The zero Config allows each client 500 requests
// at once and 100 a second for as long as it likes, on each route.
//
// A limit without route in its by is one count over all routes of a site that
// have a limit of that name which says the same; one that says something else
// has a count of its own.
type Config struct {
	// Rate is how many requests may be sent in the long run by whom by tells
	// apart: a number and a time, s, min, h or d; at most 1000000/s. Requests
	// become available one after the other, not all at the end of that time.
	// "off" counts none, and burst says nothing then. A client is an IPv4
	// address or an IPv6 /64 network. Default: 100/s. Example:
	//
	//	rate: 600/min
	Rate Rate `yaml:"rate,omitempty"`
	// Burst is how many requests may be sent at once after a pause; 1 spaces
	// every two of them. Regaining the whole of it may take 31 days at most.
	// From 1 to 1000000 requests. Default: 500 if rate is not set either,
	// otherwise the number in rate. Example:
	//
	//	burst: 50
	Burst int `yaml:"burst,omitempty"`
	// By is what rate, quota and bytes tell requests apart by, one word or a
	// list of what must all be the same: client (an IPv4 address or a /64),
	// network (a /24 or /48), asn, country, ja4 (the kind of TLS client, which
	// programs of one build share), user, role (the list of roles),
	// session, key (an API key), tenant, header NAME, field NAME (of the query,
	// form or JSON; each value is counted), route or site. Who has none, such
	// as no user, is counted by client. Unless what is written here counts by
	// client and every request, the default of 100/s and 500 at once by client
	// and route is in force beside it. Default: [client, route]. Example:
	//
	//	by: [user, route]
	By By `yaml:"by,omitempty"`
	// Cost is what one request on this route weighs, in every limit that has no
	// cost of its own. At most the burst and the quota of each of them, from 1
	// to 1000000. Default: 1. Example:
	//
	//	cost: 5
	Cost int `yaml:"cost,omitempty"`
	// Quota is how many requests may be sent from the beginning of an hour,
	// day, week (from Monday) or month to its end; at most 1000000000000. "off"
	// lifts a quota that would be inherited. Default: no quota. Example:
	//
	//	quota: 10000/day
	Quota Quota `yaml:"quota,omitempty"`
	// Bytes is how much may be transferred, bodies of requests and answers
	// together. With s, min, h or d it becomes available bit by bit, at most
	// 1000000KiB/s; an hour, day, week or month begins anew with the calendar.
	// Bodies are counted at their end, in KiB and at least one for a request;
	// who has used up all is refused until it is there again. From 1KiB to
	// 524288GiB; "off" lifts what would be inherited. Default: no bound.
	// Example:
	//
	//	bytes: 10GiB/day
	Bytes Bytes `yaml:"bytes,omitempty"`
	// Zone is where the hours, days, weeks and months of quota and bytes begin
	// and end, as the name of a time zone. Default: UTC. Example:
	//
	//	zone: Europe/Berlin
	Zone string `yaml:"zone,omitempty"`
	// Distinct counts, in rate and quota, only requests for what has not been
	// asked for within the time that it takes to regain the burst, or in the
	// same period: the path with its query. It is against walking through ids.
	// When everything is used up, all requests are refused. Default: false.
	// Example:
	//
	//	distinct: true
	Distinct bool `yaml:"distinct,omitempty"`
	// Concurrent bounds how many requests are under way at the same time.
	// Example:
	//
	//	concurrent: {client: 100, route: 2000}
	Concurrent Concurrent `yaml:"concurrent,omitempty"`
	// Limits are more limits, all of which must hold. Those of the top, the site
	// and the route add up. Example:
	//
	//	limits: [{by: user, rate: 100/min, burst: 20}, {name: monthly, by: key, quota: 100000/month}]
	Limits []Limit `yaml:"limits,omitempty" inherit:"join"`
	// Body is the longest request body, in bytes or with KiB, MiB or GiB. What
	// says that it is longer is refused at once, what turns out longer while it
	// streams is cut off. To lift a site's bound on one route, set there one
	// that no upload reaches, such as 1024GiB. Default: no bound beside the
	// inspection limit of the WAF, and uploads of any length stream. Example:
	//
	//	body: 20MiB
	Body merlon.Size `yaml:"body,omitempty"`
	// HideHeaders keeps the RateLimit and RateLimit-Policy fields, which are
	// an Internet-Draft still, out of answers. Refusals keep Retry-After.
	// Default: false. Example:
	//
	//	hide_headers: true
	HideHeaders bool `yaml:"hide_headers,omitempty"`
}

// A Limit is one more limit. It needs a rate, a quota, bytes or concurrent.
type Limit struct {
	// Name is what answers and events call the limit: up to 32 small letters,
	// digits and hyphens, unlike any other name here or inherited. Default:
	// made from by and roles, such as user-route or user-gold. Example:
	//
	//	name: per-user
	Name string `yaml:"name,omitempty"`
	// By is what requests are told apart by, as in the settings above. Default:
	// [client, route]. Example:
	//
	//	by: user
	By By `yaml:"by,omitempty"`
	// Rate is how many requests may be sent in the long run, as above. Default:
	// no bound. Example:
	//
	//	rate: 100/min
	Rate Rate `yaml:"rate,omitempty"`
	// Burst is how many requests may be sent at once after a pause, as above.
	// Default: the number in rate. Example:
	//
	//	burst: 20
	Burst int `yaml:"burst,omitempty"`
	// Quota is how many requests may be sent in an hour, day, week or month of
	// the calendar, as above. Default: no bound. Example:
	//
	//	quota: 10000/day
	Quota Quota `yaml:"quota,omitempty"`
	// Bytes is how much may be transferred, as above. Default: no bound.
	// Example:
	//
	//	bytes: 10GiB/day
	Bytes Bytes `yaml:"bytes,omitempty"`
	// Concurrent is how many requests may be under way at the same time, over
	// all processes that share a store. From 1 to 1000000 requests. Default: no
	// bound. Example:
	//
	//	concurrent: 10
	Concurrent int `yaml:"concurrent,omitempty"`
	// Cost is what one request weighs in rate and quota. At most the burst and
	// the quota, from 1 to 1000000. Default: that of the settings above.
	// Example:
	//
	//	cost: 1
	Cost int `yaml:"cost,omitempty"`
	// Distinct counts only requests for what has not been asked for, as above.
	// Default: false. Example:
	//
	//	distinct: true
	Distinct bool `yaml:"distinct,omitempty"`
	// Roles are whom the limit is for: it holds for who has one of them, and for
	// nobody else. At most 32. Default: it holds for everybody. Example:
	//
	//	roles: [gold]
	Roles []string `yaml:"roles,omitempty"`
	// Except are whom the limit is not for: it holds for everybody else, who is
	// not signed in among them. At most 32. Default: none. Example:
	//
	//	except: [gold, silver]
	Except []string `yaml:"except,omitempty"`
}

// Concurrent bounds requests that are under way in one process at the same
// time, an open WebSocket or event stream among them. After a reload those that
// began before it are not counted.
type Concurrent struct {
	// Client is how many requests of one client may be under way on this
	// route. From 1 to 1000000 requests. Default: 512, which browsers, a
	// hundred requests over one HTTP/2 connection each, do not notice.
	// Example:
	//
	//	client: 64
	Client int `yaml:"client,omitempty"`
	// Route is how many requests of all clients together may be under way on
	// this route, for backends that break rather than queue. From 1 to 1000000
	// requests. Default: no bound. Example:
	//
	//	route: 200
	Route int `yaml:"route,omitempty"`
}

const (
	// Within: the request is within every limit.
	Within merlon.Reason = "within-limits"
	// RateExceeded: the burst is used up, and more is sent than rate. If that is
	// what the application's own pages or a known program do, raise burst, or
	// rate if it goes on for long; the finding names the limit.
	RateExceeded merlon.Reason = "rate-exceeded"
	// QuotaExceeded: the quota of this hour, day, week or month is used up.
	// Raise quota if it is too small for honest use.
	QuotaExceeded merlon.Reason = "quota-exceeded"
	// BytesExceeded: as many bytes have been transferred as bytes allows. Raise
	// it if that is too little for honest use.
	BytesExceeded merlon.Reason = "bytes-exceeded"
	// ClientBusy: this client has as many requests under way as
	// concurrent.client allows. Raise it if many people share this address.
	ClientBusy merlon.Reason = "client-busy"
	// RouteBusy: all clients together have as many requests under way as
	// concurrent.route allows. Raise it if the backend can take more.
	RouteBusy merlon.Reason = "route-busy"
	// PlacesTaken: as many requests are under way as concurrent of one of the
	// limits allows. Raise it if that is too little for honest use; the finding
	// names the limit.
	PlacesTaken merlon.Reason = "places-taken"
	// FieldUnclear: requests are counted by a field of the body here, and this
	// body cannot be read for certain, or has the field more than 32 times.
	// Write by: field only on the route that the field is sent to.
	FieldUnclear merlon.Reason = "field-unclear"
	// BodyTooLarge: the request's body is longer than body allows. Raise it
	// for routes that take uploads.
	BodyTooLarge merlon.Reason = "body-too-large"
)

// Geo knows where addresses are; a limit by country or asn needs one.
type Geo interface {
	// Country returns two letters (ISO 3166-1), or nothing if it is not known.
	Country(netip.Addr) string
	// ASN returns the number of the network that announces the address, or 0.
	ASN(netip.Addr) uint
}
