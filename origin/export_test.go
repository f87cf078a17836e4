package origin

import "crypto/tls"

// JA4 is ja4, for tests.
func JA4(h *tls.ClientHelloInfo) string { return ja4(h) }
