package challenge

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// When is when browsers have to prove themselves. The zero When is OnLoad.
type When string

// The values of [When].
const (
	Always When = "always"
	OnLoad When = "load"
	Never  When = "never"
)

const whenRule = "must be always, load or never"

// UnmarshalText reads always, load or never.
func (w *When) UnmarshalText(b []byte) error {
	if *w = When(b); *w == "" || w.broken() != "" {
		return errors.New(whenRule)
	}
	return nil
}

func (w When) broken() string {
	switch w {
	case "", Always, OnLoad, Never:
		return ""
	}
	return whenRule
}

// A Rate is a number of requests in a second or a minute, written "2000/s" or
// "600/min", or "off". The zero Rate stands for the default.
type Rate struct {
	Count int
	Per   time.Duration
	Off   bool
}

const (
	rateForm = "must be a number and a time such as 2000/s or 600/min, or off"
	maxRate  = 10_000_000 // a second
)

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "off" {
		*r = Rate{Off: true}
		return nil
	}
	num, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(num, 10, 31)
	v := Rate{Count: int(n), Per: map[string]time.Duration{"s": time.Second, "min": time.Minute}[unit]}
	if err != nil {
		v = Rate{Count: -1}
	}
	if rule := v.broken(); rule != "" || v == (Rate{}) {
		return fmt.Errorf("%s, not %q", rateForm, text)
	}
	*r = v
	return nil
}

// String writes the rate as it is read; the zero Rate is empty.
func (r Rate) String() string {
	switch {
	case r.Off:
		return "off"
	case r == (Rate{}):
		return ""
	case r.Per == time.Second:
		return strconv.Itoa(r.Count) + "/s"
	case r.Per == time.Minute:
		return strconv.Itoa(r.Count) + "/min"
	}
	return fmt.Sprintf("%d/%s", r.Count, r.Per)
}

// MarshalText writes the rate as [Rate.String] does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r Rate) broken() string {
	switch {
	case r.Off || r == (Rate{}):
		return ""
	case r.Count <= 0 || r.Per != time.Second && r.Per != time.Minute:
		return rateForm
	case r.perSecond() > maxRate:
		return "must be at most 10000000/s"
	}
	return ""
}

func (r Rate) perSecond() float64 { return float64(r.Count) / r.Per.Seconds() }

// A Share is a part of a whole in percent, written "30%", or "off". The zero
// Share stands for the default.
type Share struct {
	Percent int
	Off     bool
}

const shareForm = "must be from 1% to 99%, such as 30%, or off"

// UnmarshalText reads a share.
func (s *Share) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "off" {
		*s = Share{Off: true}
		return nil
	}
	num, ok := strings.CutSuffix(text, "%")
	n, err := strconv.ParseUint(num, 10, 8)
	if !ok || err != nil || n < 1 || n > 99 {
		return fmt.Errorf("%s, not %q", shareForm, text)
	}
	*s = Share{Percent: int(n)}
	return nil
}

// String writes the share as it is read; the zero Share is empty.
func (s Share) String() string {
	switch {
	case s.Off:
		return "off"
	case s == (Share{}):
		return ""
	}
	return strconv.Itoa(s.Percent) + "%"
}

// MarshalText writes the share as [Share.String] does.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (o Over) withDefaults() (Over, []error) {
	var errs []error
	if rule := o.Rate.broken(); rule != "" {
		errs = append(errs, merlon.BadSetting("over.rate", o.Rate.String(), rule))
	}
	if e := o.Errors; !e.Off && (e.Percent < 0 || e.Percent > 99) {
		errs = append(errs, merlon.BadSetting("over.errors", e.String(), shareForm))
	}
	if o.Rate == (Rate{}) {
		o.Rate = Rate{Off: true}
	}
	if o.Errors == (Share{}) {
		o.Errors = Share{Off: true}
	}
	return o, errs
}

// within returns d, or what stands for zero, and tells if it is out of range.
func within(errs *[]error, setting string, d, zero, least, most time.Duration, text string) time.Duration {
	if d == 0 {
		return zero
	}
	if d < least || d > most {
		*errs = append(*errs, merlon.BadSetting(setting, d.String(), "must be from "+text))
	}
	return d
}

// An Allow is one rule of who need not prove anything: a word alone stands for
// {kind: word}. Of one rule, everything that it says must hold.
type Allow struct {
	// Kind is crawlers, git, packages, feeds or well-known; no-defaults takes
	// away the default rules. Default: what path and from say. Example: feeds
	Kind string `yaml:"kind,omitempty"`
	// Crawlers are the search engines whose crawlers are meant: google, bing,
	// apple, yandex, baidu, seznam. Default: all of them, if kind is crawlers.
	// Example:
	//
	//	allow: [{crawlers: [google, bing]}]
	Crawlers List `yaml:"crawlers,omitempty"`
	// Path is a pattern of paths, as of a route: * stands for anything but a
	// slash, ** for anything. Default: any path. Example: /webhooks/**
	Path string `yaml:"path,omitempty"`
	// From are addresses and networks of clients. Default: anywhere.
	// Example: [192.0.2.0/24, "2001:db8::/32"]
	From List `yaml:"from,omitempty"`
}

// A List is one word or a list of them.
type List []string

// UnmarshalYAML reads a word or a list.
func (l *List) UnmarshalYAML(decode func(any) error) error {
	var one string
	if err := decode(&one); err == nil {
		*l = List{one}
		return nil
	}
	return decode((*[]string)(l))
}

// UnmarshalYAML reads a word or a mapping.
func (a *Allow) UnmarshalYAML(decode func(any) error) error {
	var word string
	if err := decode(&word); err == nil {
		*a = Allow{Kind: word}
		return nil
	}
	type plain Allow
	return decode((*plain)(a))
}
