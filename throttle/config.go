package throttle

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// Config configures a [Guard]. The zero Config bounds nothing.
type Config struct {
	// Class is the class of expensive work that the requests of this route
	// are, one of those at the top of the file. All routes of a class share
	// its places. Default: none. Example:
	//
	//	class: db-report
	Class string `yaml:"class,omitempty"`
	// Fair says whose share of the class's queue a request counts to: the first
	// of tenant, user and client (its address, or IPv6 /64 network) that is
	// known of it; if none of those listed is, its client. Whoever has several
	// requests waiting gets no more turns than who has one. Default: tenant,
	// then user, then client. Example:
	//
	//	fair: [user]
	Fair []string `yaml:"fair,omitempty"`
	// Timeout is how long a request may take from when it is let in until its
	// answer has ended, with what it takes to send it. After that the backend's
	// work is cancelled: the client is told 504, or what it gets breaks off.
	// WebSockets and event streams end by it, too. From 100ms to 24h; the
	// timeout of the class holds beside it. Default: none, or that of the
	// class. Example:
	//
	//	timeout: 30s
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// Shed lets fewer requests through while the backend is slow. Example:
	//
	//	shed: {latency: 800ms}
	Shed ShedConfig `yaml:"shed,omitempty"`
	// Bandwidth bounds how fast request bodies and answers go. What is faster
	// is slowed down, not refused. WebSockets are not slowed. Example:
	//
	//	bandwidth: {client: 1MiB/s, route: 50MiB/s}
	Bandwidth Bandwidth `yaml:"bandwidth,omitempty"`
}

// ShedConfig says when a backend is slow.
type ShedConfig struct {
	// Latency is how long nine of ten requests may take from when they were
	// whole until the answer begins. While more take longer, or are answered by
	// 502, 503 or 504, fewer are let through at a time, at least one; the others
	// are told 503. It is not for routes that answer late on purpose, such as
	// long polling. From 1ms to 1h. Default: none, nothing is shed. Example:
	//
	//	latency: 800ms
	Latency time.Duration `yaml:"latency,omitempty"`
}

// Bandwidth bounds the bytes of request bodies and of answers, together, as
// they go to and come from the backend.
type Bandwidth struct {
	// Client is how fast the bodies of one client, an IPv4 address or an IPv6
	// /64 network, go on this route, in bytes a second at each replica. From
	// 1KiB/s to 1024GiB/s. Default: no bound. Example:
	//
	//	client: 1MiB/s
	Client ByteRate `yaml:"client,omitempty"`
	// Route is how fast the bodies of all clients together go on this route,
	// in bytes a second at all replicas together. From 1KiB/s to 1024GiB/s.
	// Default: no bound. Example:
	//
	//	route: 50MiB/s
	Route ByteRate `yaml:"route,omitempty"`
}

// ClassConfig bounds one class of expensive work.
type ClassConfig struct {
	// AtOnce is how many requests of the class may be under way at the same
	// time, at all replicas together: each takes an equal part of it, rounded
	// down, but at least 1. From 1 to 100000. Default: 4. Example:
	//
	//	at_once: 8
	AtOnce int `yaml:"at_once,omitempty"`
	// Queue is how many requests more may wait, at all replicas together. From
	// 1 to 10000, or -1 for none. Default: 20. Example:
	//
	//	queue: 100
	Queue int `yaml:"queue,omitempty"`
	// Wait is how long a request may wait for its turn; then it is told 503,
	// and when to come back. From 10ms to 10m. Default: 5s. Example:
	//
	//	wait: 10s
	Wait time.Duration `yaml:"wait,omitempty"`
	// Timeout is how long a request may hold its place; then the backend's work
	// is cancelled. It bounds WebSockets, event streams and slow uploads, too.
	// From 100ms to 24h. Default: 5m. Example:
	//
	//	timeout: 30m
	Timeout time.Duration `yaml:"timeout,omitempty"`
}

// Classes are the classes of a configuration, checked.
type Classes struct {
	byName map[string]ClassConfig
}

const (
	maxAtOnce  = 100_000
	maxQueue   = 10_000
	maxClasses = 1000
	maxName    = 64
	minRate    = 1 << 10
	maxRate    = 1 << 40
)

// NewClasses checks the classes of a configuration, by their names. Also with
// an error the Classes can be given to [New], which will not complain again.
func NewClasses(c map[string]ClassConfig) (Classes, error) {
	cs := Classes{byName: make(map[string]ClassConfig, len(c))}
	var errs []error
	if len(c) > maxClasses {
		errs = append(errs, merlon.BadSetting("", strconv.Itoa(len(c)), "must be at most 1000 classes"))
	}
	for _, n := range slices.Sorted(maps.Keys(c)) {
		class, err := c[n].check()
		if !validName(n) {
			err = errors.Join(merlon.BadSetting("", "", "must be named by 1 to 64 lower-case letters, digits and -, beginning with a letter"), err)
		}
		if err != nil {
			errs = append(errs, merlon.Within(n, err))
		}
		cs.byName[n] = class
	}
	return cs, errors.Join(errs...)
}

func validName(s string) bool {
	if s == "" || len(s) > maxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// check returns c with its defaults.
func (c ClassConfig) check() (ClassConfig, error) {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if c.AtOnce < 0 || c.AtOnce > maxAtOnce {
		bad("at_once", strconv.Itoa(c.AtOnce), "must be from 1 to 100000")
	} else if c.AtOnce == 0 {
		c.AtOnce = 4
	}
	if c.Queue < -1 || c.Queue > maxQueue {
		bad("queue", strconv.Itoa(c.Queue), "must be from 1 to 10000, or -1 for none")
	} else if c.Queue == 0 {
		c.Queue = 20
	}
	if c.Wait == 0 {
		c.Wait = 5 * time.Second
	} else if c.Wait < 10*time.Millisecond || c.Wait > 10*time.Minute {
		bad("wait", c.Wait.String(), "must be from 10ms to 10m")
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Minute
	} else if badTimeout(c.Timeout) {
		bad("timeout", c.Timeout.String(), "must be from 100ms to 24h")
	}
	return c, errors.Join(errs...)
}

func badTimeout(d time.Duration) bool { return d < 100*time.Millisecond || d > 24*time.Hour }

// check is the validation of a route's settings.
func (c Config) check(classes Classes, pool *Pool) error {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if pool == nil {
		bad("", "", "needs a pool to count in")
	}
	if _, ok := classes.byName[c.Class]; c.Class != "" && !ok {
		rule := "must be a class; there is none under class at the top of the file"
		if known := slices.Sorted(maps.Keys(classes.byName)); len(known) > 0 {
			rule = "must be one of the classes at the top of the file: " + strings.Join(known, ", ")
		}
		bad("class", c.Class, rule)
	}
	for i, f := range c.Fair {
		setting := fmt.Sprintf("fair[%d]", i)
		switch {
		case f != "tenant" && f != "user" && f != "client":
			bad(setting, f, "must be tenant, user or client")
		case slices.Contains(c.Fair[:i], f):
			bad(setting, f, "stands in this list already")
		}
	}
	if c.Timeout != 0 && badTimeout(c.Timeout) {
		bad("timeout", c.Timeout.String(), "must be from 100ms to 24h")
	}
	if l := c.Shed.Latency; l != 0 && (l < time.Millisecond || l > time.Hour) {
		bad("shed.latency", l.String(), "must be from 1ms to 1h")
	}
	speed := func(setting string, r ByteRate) {
		if r != 0 && (r < minRate || r > maxRate) {
			bad(setting, r.String(), "must be from 1KiB/s to 1024GiB/s")
		}
	}
	speed("bandwidth.client", c.Bandwidth.Client)
	speed("bandwidth.route", c.Bandwidth.Route)
	if c.Bandwidth.Client > c.Bandwidth.Route && c.Bandwidth.Route > 0 {
		bad("bandwidth.client", c.Bandwidth.Client.String(), "must not be more than bandwidth.route")
	}
	return errors.Join(errs...)
}

// A ByteRate is a number of bytes a second, written "512KiB/s" or "1MiB/s".
type ByteRate int64

// UnmarshalText reads a rate.
func (r *ByteRate) UnmarshalText(b []byte) error {
	var s merlon.Size
	text, ok := strings.CutSuffix(string(b), "/s")
	if err := s.UnmarshalText([]byte(text)); !ok || err != nil || s == 0 {
		return fmt.Errorf("must be a number of bytes a second such as 512KiB/s or 1MiB/s, not %q", b)
	}
	*r = ByteRate(s)
	return nil
}

// String writes the rate in the largest unit that divides it.
func (r ByteRate) String() string { return merlon.Size(r).String() + "/s" }

// MarshalText writes the rate as [ByteRate.String] does.
func (r ByteRate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
