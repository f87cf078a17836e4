package certs

import (
	"fmt"
	"strings"
	"time"
)

// A TrustStep is how to make one system or program trust the local CA.
type TrustStep struct {
	System   string   // "Debian, Ubuntu"
	Commands []string // to be typed; text where there is nothing to type
}

// TrustSteps says how to make others trust the root.
func (ca *LocalCA) TrustSteps() []TrustStep {
	p := shellQuote(ca.path)
	return []TrustStep{
		{"Debian, Ubuntu", []string{
			"sudo cp " + p + " /usr/local/share/ca-certificates/merlon-local-ca.crt",
			"sudo update-ca-certificates"}},
		{"Fedora, RHEL", []string{
			"sudo cp " + p + " /etc/pki/ca-trust/source/anchors/merlon-local-ca.crt",
			"sudo update-ca-trust"}},
		{"macOS", []string{
			"sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain " + p}},
		{"Windows (as administrator)", []string{
			`certutil -addstore -f ROOT "` + ca.path + `"`}},
		{"Chrome, Chromium on Linux", []string{
			`certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n "Merlon local CA" -i ` + p}},
		{"Firefox", []string{
			"Settings, Privacy & Security, Certificates, View Certificates, Authorities, Import: " + ca.path}},
		{"curl, this once", []string{
			"curl --cacert " + p + " https://localhost:8443/"}},
	}
}

// TrustText is what `merlon ca` prints: where the root is, how to recognise
// it, what it can sign for and how to make others trust it.
func (ca *LocalCA) TrustText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "The local CA's root certificate is %s\n", ca.path)
	fmt.Fprintf(&b, "  name     %s\n", ca.root.Subject.CommonName)
	fmt.Fprintf(&b, "  until    %s\n", ca.root.NotAfter.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "  SHA-256  %s\n", ca.Fingerprint())
	if names := ca.root.PermittedDNSDomains; len(names) > 0 {
		fmt.Fprintf(&b, "It can sign for these names only, and those below them: %s.\n", strings.Join(names, ", "))
	} else {
		b.WriteString("It can sign for any name, so trust it on machines of your own only.\n")
	}
	b.WriteString("To trust it:\n")
	for _, s := range ca.TrustSteps() {
		fmt.Fprintf(&b, "\n%s\n", s.System)
		for _, c := range s.Commands {
			fmt.Fprintf(&b, "  %s\n", c)
		}
	}
	return b.String()
}

// shellQuote quotes a path where a shell would read more into it.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-:@", r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
