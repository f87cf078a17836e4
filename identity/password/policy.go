package password

import (
	"context"
)

// A Rule is one thing that a password must keep.
type Rule string

const (
	TooShort  Rule = "too-short" // fewer characters than Problem.Bound
	TooLong   Rule = "too-long"  // more bytes than Problem.Bound
	NotText   Rule = "not-text"  // no valid UTF-8, or a NUL that bcrypt cannot take
	Guessable Rule = "guessable" // made of common passwords, words and sequences
	Personal  Rule = "personal"  // made of the user's names or this site's
	Breached  Rule = "breached"  // lost by someone, somewhere, already
)

// A Problem says which rule a password breaks. It never holds the password.
type Problem struct {
	Rule  Rule
	Bound int // of TooShort and TooLong
}

// String says in plain English what to change.
func (p Problem) String() string { return string(p.Rule) }

// A Policy says which passwords may be set. Its methods may be called from
// many goroutines.
type Policy struct{}

// NewPolicy returns a Policy. It opens the file of breached passwords.
func NewPolicy(c Config) (*Policy, error) { return &Policy{}, nil }

// Check returns everything that must be changed about a password before it may
// be set; nothing if it is good. The words are what the user is called: log-in
// name, display name, address; and what the site is. secondFactor says whether
// the account must prove a second factor, too.
//
// The error is for the operator alone: the list of breached passwords could
// not be asked. The problems hold without it.
func (p *Policy) Check(ctx context.Context, password string, words []string, secondFactor bool) ([]Problem, error) {
	return nil, nil
}

// Breached reports whether others have lost the password already. Ask it when
// somebody has logged in, and if so let the password be changed. The error is
// for the operator: as far as could be told, the answer holds.
func (p *Policy) Breached(ctx context.Context, password string) (bool, error) { return false, nil }

// Close closes the file of breached passwords.
func (p *Policy) Close() error { return nil }
