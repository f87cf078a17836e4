package challenge

import (
	"context"
	"net/netip"
)

// A Resolver looks names and addresses up; net.Resolver is one.
type Resolver interface {
	LookupAddr(ctx context.Context, addr string) (names []string, err error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Crawlers knows which addresses are search engines' crawlers. It outlives
// reloads, and may serve all sites.
type Crawlers struct{}

// NewCrawlers returns Crawlers that asks a resolver.
func NewCrawlers(r Resolver) *Crawlers { return &Crawlers{} }
