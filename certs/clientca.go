package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxClientCA is the largest file of authorities that is read.
const maxClientCA = 1 << 20

// loadClientCA reads the authorities that clients' certificates may be of.
// Anything in the file that is not one is a mistake: a leaf among them would
// let in whoever has its key.
func loadClientCA(path string) (*x509.CertPool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxClientCA+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxClientCA {
		return nil, errors.New("is larger than 1 MiB")
	}
	pool := x509.NewCertPool()
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		n++
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is a %s; only certificates belong there", n, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n, err)
		}
		if !cert.BasicConstraintsValid || !cert.IsCA {
			return nil, fmt.Errorf("certificate %d, of %s, is not an authority's", n, cert.Subject)
		}
		pool.AddCert(cert)
		if len(bytes.TrimSpace(rest)) == 0 {
			return pool, nil
		}
	}
	return nil, errors.New("must hold certificates in PEM, and nothing after them")
}
