package certs

import (
	"time"
)

// thresholds are the days before its end at which a certificate that has not
// been renewed is an alarm.
var thresholds = [...]int{1, 3, 7, 14}

const day = 24 * time.Hour

// A watch remembers which alarms were given, so that each is given once.
type watch struct {
	given map[watched]int // the tightest threshold given; 0 means expired
}

type watched struct {
	source, name, place string
	notAfter            time.Time
}

// look notifies of certificates that have come closer to their end.
func (w *watch) look(infos []Info, notify func(Notice)) {
	now := time.Now()
	given := make(map[watched]int, len(infos))
	for _, in := range infos {
		if in.Missing {
			continue
		}
		days, due := closest(in, now)
		if !due {
			continue
		}
		key := watched{in.Source, in.Name, in.Place, in.NotAfter}
		last, seen := w.given[key]
		given[key] = days
		if seen && last <= days {
			continue
		}
		n := Notice{Reason: CertificateExpiring, Name: in.Name, Place: in.Place, NotAfter: in.NotAfter, Days: days}
		if days == 0 {
			n.Reason = CertificateExpired
		}
		notify(n)
	}
	w.given = given // what is no longer in service is forgotten
}

// closest returns the tightest threshold that in has passed, 0 if it has run
// out. A threshold counts only once a third of the certificate's life or less
// is left: before that it is not due for renewal.
func closest(in Info, now time.Time) (days int, due bool) {
	left := in.NotAfter.Sub(now)
	if left <= 0 {
		return 0, true
	}
	if left > in.NotAfter.Sub(in.NotBefore)/3 {
		return 0, false
	}
	for _, d := range thresholds {
		if limit := time.Duration(d) * day; left <= limit && limit <= in.NotAfter.Sub(in.NotBefore)/3 {
			return d, true
		}
	}
	return 0, false
}
