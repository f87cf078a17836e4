package demo

import (
	"context"
	"net/http"
)

// Meant returns the host that a link on a page of base's means.
func Meant(base, link string) string {
	b, err := newBrowser(context.Background(), http.DefaultClient, base)
	if err != nil {
		return err.Error()
	}
	return b.at(link).Host
}
