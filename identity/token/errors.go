package token

import (
	"errors"
	"time"
)

var errBound = errors.New("is bound to something that is no certificate")

func errMissing(what string) error { return errors.New(what + " is missing") }
func errEmpty(what string) error   { return errors.New(what + " is empty") }
func errAt(what string, t time.Time) error {
	return errors.New(what + " " + t.UTC().Format(time.RFC3339))
}
