package certs

import (
	"crypto/tls"

	"github.com/merlon-dev/merlon"
)

// A Profile is a set of TLS versions, suites and curves: Mozilla's guideline
// 6.0 under its own names.
type Profile string

const (
	// Intermediate is TLS 1.2 and 1.3.
	Intermediate Profile = "intermediate"
	// Modern is TLS 1.3 only.
	Modern Profile = "modern"
)

func (p Profile) check() error {
	switch p {
	case "", Intermediate, Modern:
		return nil
	}
	return merlon.BadSetting("profile", string(p), "must be intermediate (TLS 1.2 and 1.3) or modern (TLS 1.3 only)")
}

// tls returns the profile as a configuration without certificates. Suites are
// for TLS 1.2: ephemeral key exchange and AEAD, no CBC, no DHE. Those of 1.3
// cannot be chosen in crypto/tls, and all are good.
func (p Profile) tls() *tls.Config {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384},
	}
	if p == Modern {
		conf.MinVersion = tls.VersionTLS13
	}
	return conf
}
