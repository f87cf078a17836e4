package challenge_test

import (
	"context"
	"net"
	"net/netip"
)

// nobody knows no names.
type nobody struct{}

func (nobody) LookupAddr(context.Context, string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (nobody) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}
