package attempts

import (
	"errors"
	"strconv"
	"time"

	"github.com/merlon-dev/merlon"
)

// Config configures a [Throttle]. The zero Config lets a person mistype a few
// times and a guesser try about a hundred passwords of one account, ever.
type Config struct {
	// Failures is how many tries of one account may fail without one that
	// succeeds: half of them by its log-in name and half by its address,
	// which are counted apart, also if it has but one of them. After that
	// only a browser that its owner logged in with before, a recovery link or
	// an administrator helps. From 10 to 100 tries (NIST SP 800-63B-4,
	// 3.2.2). Default: 100. Example:
	//
	//	failures: 50
	Failures int `yaml:"failures,omitempty"`
	// Pair is for one address trying one account. Default: free 5, first 1s,
	// longest 1h, forget 1h. Example:
	//
	//	pair: {free: 3}
	Pair Schedule `yaml:"pair,omitempty"`
	// Account is for one account, tried from anywhere. Default: free 10, first
	// 1s, longest 1h, forget 1h. Example:
	//
	//	account: {free: 20}
	Account Schedule `yaml:"account,omitempty"`
	// Address is for one address, IPv4 or IPv6 /64, trying any account.
	// Default: free 30, first 1s, longest 1h, forget 5m. Example:
	//
	//	address: {free: 200}
	Address Schedule `yaml:"address,omitempty"`
	// Subnet is for one network, IPv4 /24 or IPv6 /48, trying any account.
	// Default: free 300, first 1s, longest 1h, forget 30s. Example:
	//
	//	subnet: {free: 1000}
	Subnet Schedule `yaml:"subnet,omitempty"`
	// Device is for a browser that the account's owner logged in with before.
	// Default: free 10, first 1s, longest 15m, forget 10m. Example:
	//
	//	device: {free: 20}
	Device Schedule `yaml:"device,omitempty"`
	// Spray is for one password tried on many accounts, each account counted
	// once. Default: free 10, first 30s, longest 1h, forget 2h. Example:
	//
	//	spray: {free: 5}
	Spray Schedule `yaml:"spray,omitempty"`
	// Code is for second factors, recovery codes and links of one account.
	// Default: free 5, first 30s, longest 1h, forget 1h. Example:
	//
	//	code: {free: 3}
	Code Schedule `yaml:"code,omitempty"`
	// Mail is for asking that a mail be sent to one account. Default: free 3,
	// first 1m, longest 1h, forget 1h. Example:
	//
	//	mail: {free: 1}
	Mail Schedule `yaml:"mail,omitempty"`
	// Alarm is how many tries may fail in one minute, all accounts together.
	// Above it only a quarter of what is free is free to browsers that are not
	// known, and a notice is sent. From 10 to 1000000 tries. Default: 300.
	// Example:
	//
	//	alarm: 1000
	Alarm int `yaml:"alarm,omitempty"`
	// Places is how many addresses, accounts and passwords are remembered at
	// once, 40 bytes of memory each; beyond that the oldest with the fewest
	// failures are forgotten. From 1024 to 16777216. Default: 262144, which is
	// 10 MiB. Example:
	//
	//	places: 1048576
	Places int `yaml:"places,omitempty"`
}

// A Schedule is how long to wait after how many failures.
type Schedule struct {
	// Free is how many failures need no waiting. From 1 to 100000 failures.
	// Default: see the setting it belongs to. Example:
	//
	//	free: 5
	Free int `yaml:"free,omitempty"`
	// First is the wait after one failure more; each further one doubles it.
	// From 1s to 1h. Default: see the setting it belongs to. Example:
	//
	//	first: 2s
	First time.Duration `yaml:"first,omitempty"`
	// Longest is the longest wait. From 1s to 24h. Default: see the setting it
	// belongs to. Example:
	//
	//	longest: 30m
	Longest time.Duration `yaml:"longest,omitempty"`
	// Forget is after how long one failure no longer counts for the wait. From
	// 1s to 24h. Default: see the setting it belongs to. Example:
	//
	//	forget: 10m
	Forget time.Duration `yaml:"forget,omitempty"`
}

// delay is the wait after a number of failures.
func (s Schedule) delay(failures int) time.Duration {
	over := failures - s.Free
	switch {
	case over <= 0:
		return 0
	case over > 30:
		return s.Longest
	}
	return min(s.First<<(over-1), s.Longest)
}

const maxFailures = 100 // NIST SP 800-63B-4, 3.2.2

func (c Config) complete() (Config, error) {
	var errs []error
	number := func(setting string, n *int, def, least, most int) {
		if *n == 0 {
			*n = def
		}
		if *n < least || *n > most {
			errs = append(errs, merlon.BadSetting(setting, strconv.Itoa(*n), "must be from "+strconv.Itoa(least)+" to "+strconv.Itoa(most)))
		}
	}
	number("failures", &c.Failures, maxFailures, 10, maxFailures)
	number("alarm", &c.Alarm, 300, 10, 1_000_000)
	number("places", &c.Places, 1<<18, 1<<10, 1<<24)
	for _, s := range []struct {
		name string
		s    *Schedule
		def  Schedule
	}{
		{"pair", &c.Pair, Schedule{5, time.Second, time.Hour, time.Hour}},
		{"account", &c.Account, Schedule{10, time.Second, time.Hour, time.Hour}},
		{"address", &c.Address, Schedule{30, time.Second, time.Hour, 5 * time.Minute}},
		{"subnet", &c.Subnet, Schedule{300, time.Second, time.Hour, 30 * time.Second}},
		{"device", &c.Device, Schedule{10, time.Second, 15 * time.Minute, 10 * time.Minute}},
		{"spray", &c.Spray, Schedule{10, 30 * time.Second, time.Hour, 2 * time.Hour}},
		{"code", &c.Code, Schedule{5, 30 * time.Second, time.Hour, time.Hour}},
		{"mail", &c.Mail, Schedule{3, time.Minute, time.Hour, time.Hour}},
	} {
		errs = append(errs, s.s.complete(s.name, s.def)...)
	}
	return c, errors.Join(errs...)
}

// complete fills in what is not set; name is the setting it belongs to.
func (s *Schedule) complete(name string, def Schedule) (errs []error) {
	if s.Free == 0 {
		s.Free = def.Free
	}
	if s.Free < 1 || s.Free > 100_000 {
		errs = append(errs, merlon.BadSetting(name+".free", strconv.Itoa(s.Free), "must be from 1 to 100000"))
	}
	length := func(setting string, d *time.Duration, def, most time.Duration) {
		if *d == 0 {
			*d = def
		}
		if *d < time.Second || *d > most {
			errs = append(errs, merlon.BadSetting(name+"."+setting, d.String(), "must be from 1s to "+most.String()))
		}
	}
	length("first", &s.First, def.First, time.Hour)
	length("longest", &s.Longest, def.Longest, 24*time.Hour)
	length("forget", &s.Forget, def.Forget, 24*time.Hour)
	if s.Longest < s.First {
		errs = append(errs, merlon.BadSetting(name+".longest", s.Longest.String(), "must not be shorter than first"))
	}
	return errs
}
