package password

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/merlon-dev/merlon"
)

// A Rule is one thing that a password must keep.
type Rule string

const (
	TooShort  Rule = "too-short" // fewer characters than Problem.Bound
	TooLong   Rule = "too-long"  // more bytes than Problem.Bound
	NotText   Rule = "not-text"  // no valid UTF-8, or with bcrypt a NUL character
	Guessable Rule = "guessable" // made of common passwords, words and sequences
	Personal  Rule = "personal"  // made of these and what the user or the site is called
	Breached  Rule = "breached"  // somebody has lost it already
)

// A Problem says which rule a password breaks. It never holds any of it.
type Problem struct {
	Rule  Rule
	Bound int // of TooShort and TooLong
}

// String says in plain English what to change.
func (p Problem) String() string {
	switch p.Rule {
	case TooShort:
		return fmt.Sprintf("It is too short: use at least %d characters. Four or five unrelated words are easy to keep in mind.", p.Bound)
	case TooLong:
		return fmt.Sprintf("It is too long: use at most %d bytes.", p.Bound)
	case NotText:
		return "It has characters that cannot be stored: leave out control characters."
	case Guessable:
		return "It is too easy to guess: it is made of common passwords, words, names, years, repetitions or keys in a row. Add unrelated words."
	case Personal:
		return "It is too easy to guess from your name, your address or the name of this site. Add words that have nothing to do with them."
	case Breached:
		return "It is on a list of passwords that were stolen elsewhere, which attackers try first. Choose another, and change it wherever you use it."
	}
	return string(p.Rule)
}

const (
	defaultAlone, defaultSecond = 15, 8
	leastLength, mostLength     = 8, 64
	minOwnWord                  = 3
	lengthRule                  = "must be from 8 to 64"
)

// A Policy says which passwords may be set. It asks for length and for what is
// not on the attackers' lists; not for digits, capitals or a new password every
// month, which make passwords worse (NIST SP 800-63B-4, 3.1.1.2; ASVS 6.2).
// Its methods may be called from many goroutines.
type Policy struct {
	alone, second int
	most          int  // bytes
	noNUL         bool // bcrypt without a pepper
	words         []string
	filter        *Filter   // nil: none
	service       *rangeAPI // nil: none
}

// NewPolicy returns a Policy. It opens the file of breached passwords and reads
// it once, to know that it is whole.
func NewPolicy(c Config) (*Policy, error) {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	p := &Policy{alone: c.Length.Alone, second: c.Length.WithSecondFactor, most: MaxBytes}
	if p.alone == 0 {
		p.alone = defaultAlone
	}
	if p.second == 0 {
		p.second = min(defaultSecond, p.alone)
	}
	if p.alone < leastLength || p.alone > mostLength {
		bad("length.alone", strconv.Itoa(p.alone), lengthRule)
	}
	if p.second < leastLength || p.second > mostLength {
		bad("length.with_second_factor", strconv.Itoa(p.second), lengthRule)
	} else if p.second > p.alone {
		bad("length.with_second_factor", strconv.Itoa(p.second), "must not be more than length.alone")
	}
	if c.Hash == bcrypted && c.Pepper == "" {
		p.most, p.noNUL = bcryptMax, true
	}
	for i, w := range c.Words {
		if utf8.RuneCountInString(w) < minOwnWord || len(ownWords([]string{w})) == 0 {
			bad(fmt.Sprintf("words[%d]", i), w, "must have words of 3 to 16 letters or digits")
		}
	}
	p.words = c.Words
	p.service = newRangeAPI(c, bad)
	if c.Breached != "" {
		f, err := OpenFilter(c.Breached)
		if err != nil {
			bad("breached", c.Breached, err.Error())
		}
		p.filter = f
	}
	if len(errs) > 0 {
		return nil, errors.Join(append(errs, p.Close())...)
	}
	return p, nil
}

// Close closes the file of breached passwords.
func (p *Policy) Close() error {
	if p.filter == nil {
		return nil
	}
	return p.filter.Close()
}

// Check returns everything that must be changed about a password before it may
// be set; nothing if it is good. The words are what the user is called: log-in
// name, display name, address; and what the site is. secondFactor says whether
// the account must prove a second factor, too.
//
// The error is for the operator alone: the breached passwords could not be
// asked about. The problems hold without it.
func (p *Policy) Check(ctx context.Context, password string, words []string, secondFactor bool) ([]Problem, error) {
	if len(password) > p.most {
		return []Problem{{Rule: TooLong, Bound: p.most}}, nil
	}
	in := norm.NFC.Bytes([]byte(password))
	defer clear(in)
	switch {
	case len(in) > p.most:
		return []Problem{{Rule: TooLong, Bound: p.most}}, nil
	case !utf8.ValidString(password), p.noNUL && bytes.IndexByte(in, 0) >= 0:
		return []Problem{{Rule: NotText}}, nil
	}
	var problems []Problem
	least := p.alone
	if secondFactor {
		least = p.second
	}
	if utf8.RuneCount(in) < least {
		problems = append(problems, Problem{Rule: TooShort, Bound: least})
	}
	if guessBits(string(in)) < minBits {
		problems = append(problems, Problem{Rule: Guessable})
	} else if guessBits(string(in), p.words, words) < minBits {
		problems = append(problems, Problem{Rule: Personal})
	}
	// What is refused anyway does not have to be told to a service.
	lost, err := p.breached(ctx, password, in, len(problems) == 0)
	if lost {
		problems = append(problems, Problem{Rule: Breached})
	}
	return problems, err
}

// Breached reports whether others have lost the password already. Ask it when
// somebody has logged in, and if so let the password be changed. The error is
// for the operator; the answer is what could be told in spite of it.
func (p *Policy) Breached(ctx context.Context, password string) (bool, error) {
	if len(password) > MaxBytes {
		return false, nil
	}
	in := norm.NFC.Bytes([]byte(password))
	defer clear(in)
	return p.breached(ctx, password, in, true)
}

// breached looks for a password as it was typed and as it is stored: lists
// have either.
func (p *Policy) breached(ctx context.Context, password string, in []byte, online bool) (bool, error) {
	sums := [][sha1.Size]byte{sha1.Sum(in)}
	if string(in) != password {
		sums = append(sums, sha1.Sum([]byte(password)))
	}
	var errs []error
	for _, sum := range sums {
		if p.filter != nil {
			lost, err := p.filter.Contains(sum)
			if lost {
				return true, nil
			}
			if err != nil {
				errs = append(errs, err)
			}
		}
	}
	for _, sum := range sums {
		if p.service != nil && online {
			lost, err := p.service.contains(ctx, sum)
			if lost {
				return true, errors.Join(errs...)
			}
			if err != nil {
				errs = append(errs, err)
			}
		}
	}
	return false, errors.Join(errs...)
}
