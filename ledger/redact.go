package ledger

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// hidden stands where a secret was.
const hidden = "[redacted]"

// clean returns s on one line, without secrets, every character visible, in
// at most limit bytes.
func clean(s string, limit int) string {
	if len(s) < 10 && len(s) <= limit/4 && !strings.ContainsAny(s, "=:") {
		return visible(s) // no secret that can be told is so short
	}
	return shorten(visible(redact(s, 4*limit)), limit)
}

// cleanLines is clean for text whose line ends mean something. The log's JSON
// escapes them; who prints them must print line by line.
func cleanLines(s string, limit int) string {
	if !strings.Contains(s, "\n") {
		return clean(s, limit)
	}
	lines := strings.Split(redact(s, 4*limit), "\n")
	for i, line := range lines {
		lines[i] = visible(strings.ReplaceAll(strings.TrimSuffix(line, "\r"), "\t", "    "))
	}
	return shorten(strings.Join(lines, "\n"), limit)
}

// visible writes control characters, line and paragraph separators,
// direction marks and all else that is not printable as escapes, and bytes
// that are not UTF-8 as \xNN, so that text cannot steer a terminal or hide.
func visible(s string) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x`)
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&15])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		default:
			b.WriteString(`\u{`)
			started := false
			for shift := 20; shift >= 0; shift -= 4 {
				d := r >> shift & 15
				if started = started || d != 0 || shift == 0; started {
					b.WriteByte(hex[d])
				}
			}
			b.WriteByte('}')
		}
		i += n
	}
	return b.String()
}

// shorten cuts s to limit bytes and says so with an ellipsis.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return cutTo(s, limit-len("…")) + "…"
}

// cutTo returns the longest start of s within limit bytes that ends between
// characters.
func cutTo(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Names of parameters, fields and headers that hold secrets, without
// punctuation and in lower case: anywhere in the name, at its end, or all of it.
// Of letters that are not ASCII nothing is left, so that "contraseña" has lost one.
var (
	secretWords = []string{"password", "passwd", "passphrase", "passcode", "secret", "token", "apikey", "accesskey",
		"privatekey", "signingkey", "authkey", "credential", "authorization", "sessionid", "sessid", "cardnumber",
		"creditcard", "assertion", "samlresponse", "connectionstring", "cookie",
		"passwort", "kennwort", "motdepasse", "contrasea", "contrasena", "wachtwoord"}
	secretEnds  = []string{"pwd", "newpass", "oldpass", "userpass", "dbpass"}
	secretNames = []string{"pass", "pw", "pin", "otp", "totp", "cvv", "cvv2", "cvc", "code", "auth", "jwt", "session",
		"sid", "ssn", "sig", "signature"}
	// wholeLine are those whose value goes on to the end of the line when
	// nothing quotes it; after the others a colon often introduces prose
	// ("token: expired").
	wholeLine = []string{"password", "passwd", "passphrase", "pwd", "passwort", "kennwort", "secret", "apikey", "authorization", "cookie", "credential"}
)

// secretName reports whether name is one that holds a secret.
func secretName(name string) bool {
	n := bareName(name)
	if n == "" {
		return false
	}
	return slices.Contains(secretNames, n) ||
		slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(n, w) }) ||
		slices.ContainsFunc(secretEnds, func(w string) bool { return strings.HasSuffix(n, w) })
}

// bareName returns the ASCII letters and digits of name, in lower case.
func bareName(name string) string {
	var buf [64]byte
	n := 0
	for i := 0; i < len(name) && n < len(buf); i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			buf[n] = c
			n++
		}
	}
	return string(buf[:n])
}

// secretPart reports whether a finding's part names a place that holds
// secrets: `query parameter "token"`, `ARGS:password`, any cookie.
func secretPart(part string) bool {
	if secretName(part) {
		return true
	}
	for word := range strings.FieldsFuncSeq(part, func(r rune) bool { return strings.ContainsRune(` ":'.[]/`, r) }) {
		if secretName(word) {
			return true
		}
	}
	return false
}

// hideValue takes value out of text.
func hideValue(text, value string) string {
	if len(value) < 4 || text == "" {
		return text
	}
	return strings.ReplaceAll(text, value, hidden)
}

// redactTarget writes a request target with the secrets in its query taken
// out, however they are percent-encoded.
func redactTarget(path, query string) string {
	path = redactEncoded(cutTo(path, 4*maxPath))
	if query == "" {
		return path
	}
	var b strings.Builder
	b.WriteString(path)
	sep := byte('?')
	query = cutTo(query, 4*maxPath)
	for query != "" && b.Len() <= maxPath {
		end := strings.IndexFunc(query, isPairEnd)
		pair, next, rest := query, sep, ""
		if end >= 0 {
			pair, next, rest = query[:end], query[end], query[end+1:]
		}
		b.WriteByte(sep)
		sep, query = next, rest
		name, value, ok := strings.Cut(pair, "=")
		b.WriteString(redactEncoded(name))
		if !ok {
			continue
		}
		b.WriteByte('=')
		if secretName(unescape(name)) {
			b.WriteString(hidden)
		} else {
			b.WriteString(redactEncoded(value))
		}
	}
	return b.String()
}

// redactEncoded redacts s by what it decodes to, and leaves it as it is if
// there is nothing to hide.
func redactEncoded(s string) string {
	plain := unescape(s)
	if r := redact(plain, 4*maxPath); r != plain {
		return r
	}
	return s
}

// unescape undoes up to three layers of percent-encoding and leaves alone
// what is not one.
func unescape(s string) string {
	for range 3 {
		if !strings.ContainsAny(s, "%+") {
			return s
		}
		b := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			switch {
			case s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0:
				b = append(b, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
				i += 2
			case s[i] == '+':
				b = append(b, ' ')
			default:
				b = append(b, s[i])
			}
		}
		s = string(b)
	}
	return s
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// Secrets that are known by their look, each with a text that must be there
// for the expression to be tried.
var looks = []struct {
	hints []string
	re    *regexp.Regexp
	with  string
}{
	{[]string{"-----BEGIN"}, regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*(?:PRIVATE|SECRET)[A-Z0-9 ]*-----.*?(?:-----END[A-Z0-9 ]*-----|$)`), hidden},
	{[]string{"eyJ"}, regexp.MustCompile(`eyJ[A-Za-z0-9_-]{7,}(?:\.[A-Za-z0-9_-]*)*`), hidden},
	{[]string{"AKIA", "ASIA", "ABIA", "ACCA"}, regexp.MustCompile(`(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}`), hidden},
	{[]string{"gh", "glpat-", "xox", "sk", "rk_", "AIza", "SG.", "npm_", "hvs.", "AGE-SECRET"}, regexp.MustCompile(
		`gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|` +
			`[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|sk-[A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{30,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]*|` +
			`npm_[A-Za-z0-9]{30,}|hvs\.[A-Za-z0-9_-]{20,}|AGE-SECRET-KEY-[A-Z0-9-]{20,}`), hidden},
	{[]string{"earer", "EARER", "asic", "ASIC"}, regexp.MustCompile(`(?i)\b(bearer|basic)[ +]+[A-Za-z0-9+/=._~-]{8,}`), "${1} " + hidden},
	{[]string{"://"}, regexp.MustCompile(`://[^/?#\s@:"']*:[^/?#\s"']*@`), "://" + hidden + "@"},
}

// cutSecret is the start of something that may have been a secret before
// the text was cut.
var cutSecret = regexp.MustCompile(`[0-9 -]{4,}$|[A-Za-z0-9_+/=.-]{8,}$`)

// redact takes out of text, of which it reads no more than limit bytes, what
// is named like a secret and what looks like one.
func redact(s string, limit int) string {
	isCut := len(s) > limit
	s = redactWith(cutTo(s, limit), nil)
	if isCut {
		s = cutSecret.ReplaceAllString(s, "[cut]")
	}
	return s
}

// redactWith takes the secrets out of s. What stands in their place is made by
// mask, or if that is nil says that something was there.
func redactWith(s string, mask func(string) string) string {
	for i := range looks {
		l := &looks[i]
		switch {
		case !slices.ContainsFunc(l.hints, func(h string) bool { return strings.Contains(s, h) }):
		case mask == nil:
			s = l.re.ReplaceAllString(s, l.with)
		default:
			s = l.re.ReplaceAllStringFunc(s, mask)
		}
	}
	return redactCards(redactPairs(s, mask), mask)
}

// redactPairs hides the values in name=value, "name": "value" and the like
// where the name is a secret's.
func redactPairs(s string, mask func(string) string) string {
	var b strings.Builder
	done := 0 // s[:done] is in b
	for i := 0; i < len(s); i++ {
		if s[i] != '=' && s[i] != ':' || i < done {
			continue
		}
		name := nameBefore(s[done:i])
		if !secretName(name) {
			continue
		}
		from, to := valueAfter(s, i, bareName(name))
		if from < to {
			b.WriteString(s[done:from])
			if mask == nil {
				b.WriteString(hidden)
			} else {
				b.WriteString(mask(s[from:to]))
			}
			done, i = to, to-1
		}
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// nameBefore returns the name that ends s, but for spaces and quotes.
func nameBefore(s string) string {
	s = strings.TrimRight(s, " \t\"'`\\")
	i := len(s)
	for i > 0 && len(s)-i < 64 && isNameByte(s[i-1]) {
		i--
	}
	return s[i:]
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_-.[]$", c) >= 0
}

// valueAfter finds the value that the separator at s[i] introduces.
func valueAfter(s string, i int, name string) (from, to int) {
	colon := s[i] == ':'
	for i < len(s) && strings.IndexByte("=:>~ \t", s[i]) >= 0 {
		i++
	}
	rest := s[i:]
	if strings.HasPrefix(rest, hidden) {
		return 0, 0
	}
	quote := ""
	for _, q := range []string{`\"`, `\'`, `"`, `'`, "`"} {
		if strings.HasPrefix(rest, q) {
			quote = q
			break
		}
	}
	if quote != "" {
		return i + len(quote), i + len(quote) + quotedEnd(rest[len(quote):], quote)
	}
	if colon && slices.ContainsFunc(wholeLine, func(w string) bool { return strings.Contains(name, w) }) {
		return i, i + indexAny(rest, "\r\n,}&")
	}
	end := indexAny(rest, " \t\r\n,;&}])<>\"'|")
	// "token: expired", "status code: 500"
	if colon && end < 16 && (name == "code" || !strings.ContainsAny(rest[:end], "0123456789")) {
		return 0, 0
	}
	return i, i + end
}

// quotedEnd returns where the quoted text s ends: at the quote, one that a
// backslash escapes left out.
func quotedEnd(s, quote string) int {
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], quote) {
			return i
		}
		if s[i] == '\\' {
			i++
		}
	}
	return len(s)
}

func indexAny(s, chars string) int {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return i
	}
	return len(s)
}

// redactCards hides all but the last four digits of payment card numbers:
// 13 to 19 digits with no others next to them, single spaces or hyphens
// between them, that begin as card numbers do and pass the Luhn check
// (ISO/IEC 7812-1).
func redactCards(s string, mask func(string) string) string {
	var b strings.Builder
	done := 0
	for i := 0; i < len(s); i++ {
		if !isDigit(s, i) || isDigit(s, i-1) || s[i] < '2' || s[i] > '6' {
			continue
		}
		digits, ends := digitRun(s, i)
		for n := len(digits); n >= 13; n-- {
			stop := ends[n-1]
			if isDigit(s, stop) || !luhn(digits[:n]) {
				continue
			}
			b.WriteString(s[done:i])
			if mask == nil {
				b.WriteString("[card *" + string(digits[n-4:n]) + "]")
			} else {
				b.WriteString(mask(s[i:stop]))
			}
			done, i = stop, stop-1
			break
		}
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

func isDigit(s string, i int) bool { return i >= 0 && i < len(s) && s[i] >= '0' && s[i] <= '9' }

// digitRun collects up to 19 digits from s[i] on, over single separators, and
// where each ends.
func digitRun(s string, i int) (digits []byte, ends []int) {
	var d [19]byte
	var e [19]int
	n := 0
	for ; i < len(s) && n < len(d); i++ {
		if isDigit(s, i) {
			d[n], e[n] = s[i], i+1
			n++
		} else if s[i] != ' ' && s[i] != '-' || !isDigit(s, i+1) {
			break
		}
	}
	return d[:n], e[:n]
}

func luhn(digits []byte) bool {
	sum := 0
	for i, c := range digits {
		d := int(c - '0')
		if (len(digits)-i)%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// SecretName reports whether the log takes out the value of a parameter, field
// or header of this name.
func SecretName(name string) bool { return secretName(name) }

// Mask returns text with everything that the log would take out of it, be it
// named like a secret or look like one, replaced by what mask makes of it.
func Mask(text string, mask func(string) string) string { return redactWith(text, mask) }

// Unescape undoes up to three layers of percent-encoding, and leaves alone
// what is not one.
func Unescape(s string) string { return unescape(s) }
