package gateway

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/certs"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/ledger"
)

// attacked leaves an event about an attack on a log-in.
func attacked(env Env, guard string, n attempts.Notice) {
	if env.Ledger == nil {
		return
	}
	e := ledger.Event{Time: n.Time, Kind: ledger.Alarm, Name: identity.LoginFailMax, Guard: guard, Message: n.Kind, Count: uint64(n.Count)}
	if n.Client.IsValid() {
		e.Client = n.Client.String()
	}
	if user := identity.Loggable(n.Account); user != "" {
		e.Attrs = map[string]string{"user": user}
	}
	if n.Err != nil {
		e.Attrs = map[string]string{"error": n.Err.Error()}
	}
	if err := env.Ledger.Append(e); err != nil && !errors.Is(err, ledger.ErrClosed) {
		env.Log.Error("an event could not be recorded", "event", n.Kind, "error", err)
	}
}

// banned passes on what happens to bans.
func (s *Server) banned(n ban.Notice) {
	attrs := map[string]string{}
	add := func(name, value string) {
		if value != "" {
			attrs[name] = value
		}
	}
	message := map[merlon.Reason]string{
		ban.BansFull:     "there are as many bans as there may be; those that end soonest were dropped",
		ban.BansUnshared: "bans cannot be read or written; those that are known hold on",
		ban.BansShared:   "bans are read and written again",
		ban.ListUnusable: "a list of bans has changed and cannot be used; what was read before holds on",
		ban.ListRead:     "a list of bans has changed and was read",
		ban.NotCounted:   "strikes cannot be counted, so nobody is banned for them",
	}[n.Reason]
	if n.Reason == ban.Imposed {
		message = n.Ban.Key + " is banned until " + n.Ban.Until.UTC().Format(time.RFC3339) + ": " + n.Ban.Why
		add("key", n.Ban.Key)
		add("by", n.Ban.By)
		add("times", strconv.Itoa(n.Ban.Times))
	}
	add("file", n.Place)
	if n.Entries > 0 {
		add("entries", strconv.Itoa(n.Entries))
	}
	if n.Err != nil {
		add("error", n.Err.Error())
	}
	if n.Reason == ban.Imposed {
		// Who has many addresses has them banned at will: like other refusals,
		// such events are counted where there are too many.
		s.append(ledger.Event{Time: time.Now(), Kind: ledger.Refusal, Guard: "ban", Reason: n.Reason, Site: n.Ban.Site,
			Client: clientOf(n.Ban.Key), Message: message, Attrs: attrs})
		return
	}
	s.note("ban", n.Reason, message, n.Ban.Site, n.Alarm(), attrs)
}

// clientOf returns the address, or the first of the network, that a ban's key
// names; nothing if it names a user or a key.
func clientOf(key string) string {
	kind, text, _ := strings.Cut(key, " ")
	if kind != "client" && kind != "network" {
		return ""
	}
	address, _, _ := strings.Cut(text, "/")
	return address
}

const (
	// SharedLost: the Redis that counts limits for all replicas is down, slow or
	// refuses. Each replica counts for itself, up to its part of each limit.
	SharedLost merlon.Reason = "shared-lost"
	// SharedBack: limits are counted in Redis again.
	SharedBack merlon.Reason = "shared-back"
	// SharedForgot: Redis has forgotten counts, because it was flushed, started
	// anew or has too little memory. Replicas count for themselves for a moment.
	SharedForgot merlon.Reason = "shared-forgot"
)

// unshared passes on what happens to the counts that replicas share.
func (s *Server) unshared(n count.Notice) {
	attrs := map[string]string{"replicas": strconv.Itoa(n.Replicas)}
	if n.Err != nil {
		attrs["error"] = n.Err.Error()
	}
	reason, message := SharedBack, "limits are counted in Redis again"
	switch n.Event {
	case count.SharedLost:
		reason, message = SharedLost, "limits cannot be counted in Redis; each replica counts its part"
	case count.SharedForgot:
		reason, message = SharedForgot, "Redis has forgotten counts; replicas count their part for a moment"
	}
	s.note("limit", reason, message, "", reason != SharedBack, attrs)
}

// note leaves an event about what a guard does outside of requests.
func (s *Server) note(guard string, reason merlon.Reason, message, site string, alarm bool, attrs map[string]string) {
	kind := ledger.Admin
	if alarm {
		kind = ledger.Alarm
		s.log.Error(guard, "reason", reason, "message", message, "attrs", attrs)
	}
	if s.ledger == nil {
		return
	}
	s.append(ledger.Event{Time: time.Now(), Kind: kind, Guard: guard, Reason: reason, Site: site, Message: message, Attrs: attrs})
}

// notice passes on what happens to certificates.
func (s *Server) notice(n certs.Notice) {
	attrs := []any{"reason", n.Reason, "name", n.Name}
	if n.Place != "" {
		attrs = append(attrs, "file", n.Place)
	}
	if n.Err != nil {
		attrs = append(attrs, "error", n.Err)
	}
	if n.Reason == certs.CertificateRenewed {
		s.log.Info("certificate", attrs...)
		return
	}
	s.log.Error("certificate", attrs...)
	e := ledger.Event{Time: time.Now(), Kind: ledger.Alarm, Guard: "certs", Reason: n.Reason,
		Message: "certificate for " + n.Name, Attrs: map[string]string{"file": n.Place}}
	if n.Err != nil {
		e.Attrs["error"] = n.Err.Error()
	}
	if n.Days > 0 {
		e.Attrs["days_left"] = strconv.Itoa(n.Days)
	}
	s.append(e)
}
