package csrf

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// parseTrusted returns an origin that may be trusted, as a browser writes it
// (RFC 6454 section 6.2), or the rule that it breaks.
func parseTrusted(text string) (origin, rule string) {
	const form = "must be a scheme and a host, such as https://partner.example"
	scheme, _, _ := strings.Cut(text, ":")
	scheme = strings.ToLower(scheme)
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" || strings.ContainsAny(text, "?#") {
		return "", form + ", without path, query or user"
	}
	host := strings.ToLower(u.Hostname())
	loopback, rule := judgeHost(host)
	if rule != "" {
		return "", rule
	}
	if scheme != "https" && (scheme != "http" || !loopback) {
		return "", "must be https"
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if strings.HasSuffix(u.Host, ":") {
		return "", form + ", and a port only if there is one"
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", "must have a port from 1 to 65535"
		}
		if scheme == "https" && n != 443 || scheme == "http" && n != 80 {
			host += ":" + strconv.FormatUint(n, 10)
		}
	}
	return scheme + "://" + host, ""
}

// judgeHost reports whether host is this machine, or which rule it breaks.
func judgeHost(host string) (loopback bool, rule string) {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" || a.String() != host {
			return false, "must be an address in its shortest form, without a zone"
		}
		return a.IsLoopback(), ""
	}
	for _, c := range host {
		switch {
		case c == '*':
			return false, "must not hold wildcards: list each origin"
		case c > 0x7e:
			return false, "must be ASCII: write names in other scripts as xn--…"
		case c != '-' && c != '.' && c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9'):
			return false, "must be a host name or an address"
		}
	}
	if strings.Trim(host, ".") == "" || len(host) > 253 {
		return false, "must be a host name or an address"
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost"), ""
}
