package certs

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/netip"
	"sync"
	"time"
)

const (
	// leafLife is what public authorities give too: probers take a month or less
	// for a certificate that is about to run out.
	leafLife = 90 * day
	// maxLeaves bounds the leafs kept, about 2 KiB each: under "*" the client
	// chooses the names.
	maxLeaves = 1024
)

// A leafCache keeps the leafs used most recently. All share one key: making
// one for every name that a client may think of would only cost time.
type leafCache struct {
	key *ecdsa.PrivateKey

	mu     sync.Mutex
	byName map[string]*list.Element
	order  list.List // of *tls.Certificate by name; front is the latest used
}

type leafEntry struct {
	name string
	cert *tls.Certificate
}

func (ca *LocalCA) newLeafKey() (err error) {
	ca.leaves.byName = map[string]*list.Element{}
	ca.leaves.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return err
}

// leaf returns a certificate for a normalised name, nil if the root may not
// sign for it. One with a third or less of its life left is replaced. It is
// made outside the lock, so that names already known do not wait behind
// names that clients make up.
func (ca *LocalCA) leaf(name string) (*tls.Certificate, error) {
	if cert := ca.leaves.get(name, time.Now()); cert != nil {
		return cert, nil
	}
	if !ca.maySign(name) {
		return nil, nil
	}
	cert, err := ca.sign(name, time.Now())
	if err != nil {
		return nil, err
	}
	ca.leaves.put(name, cert)
	return cert, nil
}

func (ca *LocalCA) sign(name string, now time.Time) (*tls.Certificate, error) {
	leaf := &x509.Certificate{
		NotBefore:   now.Add(-time.Hour), // clocks differ
		NotAfter:    now.Add(leafLife - time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(name) <= 64 { // the most that RFC 5280 lets it be
		leaf.Subject = pkix.Name{CommonName: name}
	}
	if leaf.NotAfter.After(ca.root.NotAfter) {
		leaf.NotAfter = ca.root.NotAfter
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		leaf.IPAddresses = append(leaf.IPAddresses, ip.AsSlice())
	} else {
		leaf.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca.root, &ca.leaves.key.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: ca.leaves.key, Leaf: parsed}, nil
}

func (c *leafCache) get(name string, now time.Time) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byName[name]
	if !ok {
		return nil
	}
	cert := e.Value.(leafEntry).cert
	if cert.Leaf.NotAfter.Sub(now) <= cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)/3 {
		return nil // put replaces it
	}
	c.order.MoveToFront(e)
	return cert
}

func (c *leafCache) put(name string, cert *tls.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byName[name]; ok {
		e.Value = leafEntry{name, cert}
		c.order.MoveToFront(e)
		return
	}
	c.byName[name] = c.order.PushFront(leafEntry{name, cert})
	if c.order.Len() > maxLeaves {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.byName, last.Value.(leafEntry).name)
	}
}
