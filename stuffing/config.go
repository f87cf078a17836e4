package stuffing

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/attempts"
)

// Config describes a log-in that a site's backend owns, and how much guessing
// it is to see. The zero Config describes none: path and user_field must be set.
type Config struct {
	// Path is where the log-in is sent to: a path, or a pattern with * for
	// anything but a slash and ** for anything; one or a list. Case, a slash at
	// the end, an extension such as .json and parameters after ";" make no
	// difference for what is counted. Write it as your pages send it: no browser
	// is known by what else may be a log-in. Default: none, it must be set.
	// Example:
	//
	//	path: /api/login
	Path List `yaml:"path,omitempty"`
	// Methods are those that log in; one or a list. A method that the request
	// asks to be taken for (X-HTTP-Method-Override, _method) counts as well, and
	// so do GET and HEAD with a password, and any other with a user and a
	// password. Default: POST. Example:
	//
	//	methods: [POST, PUT]
	Methods List `yaml:"methods,omitempty"`
	// UserField is the name of the field with the user's name: in the query, a
	// form, JSON (with dots for objects in objects) or a GraphQL operation. Of a
	// list, each may have it. Default: none, it must be set. Example:
	//
	//	user_field: email
	UserField List `yaml:"user_field,omitempty"`
	// PasswordField is the name of the field with the password. Only a keyed
	// hash of its value is kept, to see one password tried on many users.
	// Default: password. Example:
	//
	//	password_field: pass
	PasswordField string `yaml:"password_field,omitempty"`
	// Shared says that the path also serves what is no log-in, as that of a
	// GraphQL service does: a request with neither of the fields passes and is
	// not counted. Browsers are known there only by a success with a cookie,
	// since clients choose what else is answered. Default: false, each request
	// to the path is a log-in. Example:
	//
	//	shared: true
	Shared bool `yaml:"shared,omitempty"`
	// Failed is how the backend's answer to a wrong try looks. Any of 400 to
	// 499 is one always, and a redirect back to path unless success is set; 500
	// and above, 206, 301, 304, 307 and 308 are neither right nor wrong; everything
	// else is right. Default: only these. Example:
	//
	//	failed: {location: "/login?error*"}
	Failed Failed `yaml:"failed,omitempty"`
	// Success is what the answer to a right try must have. Default: nothing.
	// Example:
	//
	//	success: {cookie: session}
	Success Success `yaml:"success,omitempty"`
	// Canaries are users that nobody is, left where only who steals or guesses
	// finds them. A try of one raises an alarm, counts as ten for its address,
	// and is answered by the backend as a try of any unknown user is; if it says
	// that the password is right, the try is refused. One or a list, at most
	// 1000. Default: none. Example:
	//
	//	canaries: [j.archer@example.com]
	Canaries List `yaml:"canaries,omitempty"`
	// Slow is the longest wait that a try is kept waiting for, rather than
	// being challenged or refused, by the request itself. From 1s to 30s.
	// Default: 4s. Example:
	//
	//	slow: 2s
	Slow time.Duration `yaml:"slow,omitempty"`
	// AtOnce is how many tries one request may make, such as a batch; each
	// counts. From 1 to 20 tries. Default: 5. Example:
	//
	//	at_once: 1
	AtOnce int `yaml:"at_once,omitempty"`
	// Passes is how many tries a browser that has solved the challenge may make
	// where others have to wait. From 1 to 100 tries. Default: 5. Example:
	//
	//	passes: 3
	Passes int `yaml:"passes,omitempty"`
	// Failures is how many tries of one user may fail without one that
	// succeeds; after that only a browser that the user logged in with before
	// gets in. From 10 to 100 tries (NIST SP 800-63B-4, 3.2.2). Default: 100.
	// Example:
	//
	//	failures: 50
	Failures int `yaml:"failures,omitempty"`
	// Pair is for one address trying one user. Default: free 5, first 1s,
	// longest 1h, forget 1h. Example:
	//
	//	pair: {free: 3}
	Pair attempts.Schedule `yaml:"pair,omitempty"`
	// Account is for one user, tried from anywhere. Default: free 10, first 1s,
	// longest 1h, forget 1h. Example:
	//
	//	account: {free: 20}
	Account attempts.Schedule `yaml:"account,omitempty"`
	// Addresses is for one user tried from many addresses, each counted once.
	// Default: free 5, first 10s, longest 1h, forget 1h. Example:
	//
	//	addresses: {free: 10}
	Addresses attempts.Schedule `yaml:"addresses,omitempty"`
	// Address is for one address, IPv4 or IPv6 /64, trying any user. Default:
	// free 60, first 1s, longest 1h, forget 5m. Example:
	//
	//	address: {free: 200}
	Address attempts.Schedule `yaml:"address,omitempty"`
	// Users is for one address trying many users, each counted once. Default:
	// free 40, first 2s, longest 1h, forget 5m. Example:
	//
	//	users: {free: 100}
	Users attempts.Schedule `yaml:"users,omitempty"`
	// Subnet is for one network, IPv4 /24 or IPv6 /48, trying any user.
	// Default: free 300, first 1s, longest 1h, forget 30s. Example:
	//
	//	subnet: {free: 1000}
	Subnet attempts.Schedule `yaml:"subnet,omitempty"`
	// Spray is for one password tried on many users, each counted once.
	// Default: free 10, first 30s, longest 1h, forget 2h. Example:
	//
	//	spray: {free: 5}
	Spray attempts.Schedule `yaml:"spray,omitempty"`
	// Device is for a browser that the user logged in with before. Default:
	// free 10, first 1s, longest 15m, forget 10m. Example:
	//
	//	device: {free: 20}
	Device attempts.Schedule `yaml:"device,omitempty"`
	// All is for all unknown browsers together, and holds only while share or
	// alarm is exceeded. A wait longer than slow shuts the log-in to them.
	// Default: free 20, first 1s, longest 4s, forget 10s. Example:
	//
	//	all: {free: 100}
	All attempts.Schedule `yaml:"all,omitempty"`
	// Share is how many of a hundred tries may fail, within a minute in which
	// at least 20 do, no more than five of one address. Above it, and for ten
	// minutes after, unknown browsers have to solve the challenge if there is
	// one, a quarter of what is free is free to them, and a notice is sent.
	// From 10 to 100. Default: 60. Example:
	//
	//	share: 80
	Share int `yaml:"share,omitempty"`
	// Alarm is how many tries may fail in one minute before the same happens,
	// whatever their share. From 10 to 1000000 tries. Default: 300. Example:
	//
	//	alarm: 1000
	Alarm int `yaml:"alarm,omitempty"`
}

// Failed tells a wrong try by the backend's answer: each rule that is set is
// one way to fail.
type Failed struct {
	// Status is what is answered to a wrong try, one or a list, for backends
	// that answer with something below 400. From 200 to 499. Default: none
	// beside 400 to 499. Example:
	//
	//	status: 200
	Status Statuses `yaml:"status,omitempty"`
	// Location is where a wrong try is redirected to, with * for anything: a
	// path with its query, whatever the host before it; one or a list. A page
	// is then neither right nor wrong, unless body or success tells. Default:
	// none. Example:
	//
	//	location: "/login?error*"
	Location List `yaml:"location,omitempty"`
	// Body is a text that the answer has among its first 65536 bytes if the try
	// was wrong, such as GraphQL's list of errors; one or a list. An answer in
	// a content coding other than gzip counts as a failure. A page without it
	// makes no browser known: set success if right tries are answered with one.
	// Default: none. Example:
	//
	//	body: '"errors":'
	Body List `yaml:"body,omitempty"`
}

// Success tells a right try by the backend's answer.
type Success struct {
	// Cookie is the name of a cookie that is set if, and only if, the try was
	// right. Default: none need be. Example:
	//
	//	cookie: session
	Cookie string `yaml:"cookie,omitempty"`
}

// A List is one text or a list of them.
type List []string

// UnmarshalYAML reads a text or a list.
func (l *List) UnmarshalYAML(decode func(any) error) error {
	var one string
	if decode(&one) == nil {
		*l = List{one}
		return nil
	}
	return decode((*[]string)(l))
}

// Statuses are one HTTP status or a list of them.
type Statuses []int

// UnmarshalYAML reads a status or a list.
func (s *Statuses) UnmarshalYAML(decode func(any) error) error {
	var one int
	if decode(&one) == nil {
		*s = Statuses{one}
		return nil
	}
	return decode((*[]int)(s))
}

const (
	maxCanaries = 1000
	maxList     = 32
)

func (c Config) complete() (Config, error) {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	number := func(setting string, n *int, def, least, most int) {
		if *n == 0 {
			*n = def
		}
		if *n < least || *n > most {
			bad(setting, strconv.Itoa(*n), fmt.Sprintf("must be from %d to %d", least, most))
		}
	}
	list := func(setting string, l List, most int, rule func(string) string) {
		if len(l) > most {
			bad(setting, "", "must not have more than "+strconv.Itoa(most))
		}
		for i, v := range l {
			if r := rule(v); r != "" {
				bad(fmt.Sprintf("%s[%d]", setting, i), v, r)
			}
		}
	}
	if len(c.Path) == 0 {
		bad("path", "", "must be set to where the log-in is sent, such as /api/login")
	}
	list("path", c.Path, maxList, pathRule)
	if len(c.Methods) == 0 {
		c.Methods = List{"POST"}
	}
	list("methods", c.Methods, maxList, methodRule)
	if len(c.UserField) == 0 {
		bad("user_field", "", "must be set to the name of the field with the user's name")
	}
	list("user_field", c.UserField, 8, fieldRule)
	if c.PasswordField == "" {
		c.PasswordField = "password"
	}
	if r := fieldRule(c.PasswordField); r != "" {
		bad("password_field", c.PasswordField, r)
	}
	for i, s := range c.Failed.Status {
		if s < 200 || s > 499 {
			bad(fmt.Sprintf("failed.status[%d]", i), strconv.Itoa(s), "must be from 200 to 499")
		}
	}
	list("failed.location", c.Failed.Location, maxList, notEmpty)
	list("failed.body", c.Failed.Body, maxList, notEmpty)
	list("canaries", c.Canaries, maxCanaries, notEmpty)
	if n := c.Success.Cookie; strings.ContainsAny(n, "=;, \t\r\n\"") {
		bad("success.cookie", n, "must be the name of a cookie")
	}
	if c.Slow == 0 {
		c.Slow = 4 * time.Second
	}
	if c.Slow < time.Second || c.Slow > 30*time.Second {
		bad("slow", c.Slow.String(), "must be from 1s to 30s")
	}
	number("at_once", &c.AtOnce, 5, 1, 20)
	number("passes", &c.Passes, 5, 1, 100)
	number("share", &c.Share, 60, 10, 100)
	return c, errors.Join(errs...)
}

// defaults fills in what differs from Merlon's own log-in: offices stand behind
// one address, and here nobody is known on the first day.
func (c *Config) defaults() {
	fill := func(s *attempts.Schedule, def attempts.Schedule) {
		if s.Free == 0 {
			s.Free = def.Free
		}
		if s.First == 0 {
			s.First = def.First
		}
		if s.Longest == 0 {
			s.Longest = def.Longest
		}
		if s.Forget == 0 {
			s.Forget = def.Forget
		}
	}
	fill(&c.Address, attempts.Schedule{Free: 60, First: time.Second, Longest: time.Hour, Forget: 5 * time.Minute})
	fill(&c.Users, attempts.Schedule{Free: 40, First: 2 * time.Second, Longest: time.Hour, Forget: 5 * time.Minute})
	fill(&c.All, attempts.Schedule{Free: 20, First: time.Second, Longest: 4 * time.Second, Forget: 10 * time.Second})
	fill(&c.Addresses, attempts.Schedule{Free: 5, First: 10 * time.Second, Longest: time.Hour, Forget: time.Hour})
}

func pathRule(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return `must begin with "/"`
	case !doublestar.ValidatePattern(p):
		return `must be a path or a pattern such as "/api/*/login"`
	}
	return ""
}

func methodRule(m string) string {
	if m == "" || strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return "must be a method such as POST"
	}
	return ""
}

func fieldRule(name string) string {
	if name == "" || len(name) > 100 || strings.Count(name, ".") > 7 || strings.ContainsAny(name, "\x00\r\n") {
		return "must be the name of a field, at most 100 bytes, and 8 names as a path"
	}
	return ""
}

func notEmpty(s string) string {
	if s == "" {
		return "must not be empty"
	}
	return ""
}
