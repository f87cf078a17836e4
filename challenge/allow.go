package challenge

import "github.com/merlon-dev/merlon"

type rules struct{}

func newRules(list []Allow, c *Crawlers) (*rules, []error) { return &rules{}, nil }

func (a *rules) match(r *merlon.Request) (ok bool, fake string) { return false, "" }

func remedy(r *merlon.Request) string { return "" }
