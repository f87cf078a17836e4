package origin

// The character classes of RFC 9110, 5.6.2 and RFC 3986, as tables: every
// byte of every head is looked up in one of them.
var (
	tokenByte = classOf("!#$%&'*+-.^_`|~", true)
	hostByte  = classOf("-._~", true)
	hexValue  = hexTable()
)

func classOf(marks string, alnum bool) (t [256]bool) {
	for _, c := range []byte(marks) {
		t[c] = true
	}
	if alnum {
		for c := range t {
			if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
				t[c] = true
			}
		}
	}
	return t
}

func hexTable() (t [256]int8) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = int8(c - '0')
		case c >= 'a' && c <= 'f':
			t[c] = int8(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			t[c] = int8(c - 'A' + 10)
		default:
			t[c] = -1
		}
	}
	return t
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// tokenLen returns the length of the token that b begins with.
func tokenLen(b []byte) int {
	for i, c := range b {
		if !tokenByte[c] {
			return i
		}
	}
	return len(b)
}

// cleanValue reports whether b holds no control characters but tabs.
func cleanValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold reports whether b is lower, ignoring ASCII case only.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// hasToken reports whether a comma-separated list holds a token.
func hasToken(list []byte, lower string) bool {
	start := 0
	for i := 0; i <= len(list); i++ {
		if i == len(list) || list[i] == ',' {
			if equalFold(trimOWS(list[start:i]), lower) {
				return true
			}
			start = i + 1
		}
	}
	return false
}
