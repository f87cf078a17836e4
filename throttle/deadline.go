package throttle

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// TimeoutHeader tells the backend in how many seconds its answer will not be
// wanted any more: "4.250".
const TimeoutHeader = "Merlon-Timeout"

const grpcTimeout = "Grpc-Timeout"

// TellDeadline writes into r's header how long its answer is waited for, by
// the deadline of its context: [TimeoutHeader], and for gRPC grpc-timeout, if
// that is absent or longer. What the client says under the first name is
// dropped. [Guard.Check] does it, but a gateway that then strips the names that
// are its own must do so again.
func TellDeadline(r *merlon.Request) {
	delete(r.Header, TimeoutHeader)
	if at, ok := r.Context().Deadline(); ok {
		tell(r, time.Until(at), new([1]string))
	}
}

// tell is TellDeadline for a header without what the client says. room backs
// the value that is written.
func tell(r *merlon.Request, left time.Duration, room *[1]string) {
	ms := max(left.Milliseconds(), 1)
	var b [24]byte
	text := strconv.AppendInt(b[:0], ms/1000, 10)
	room[0] = string(append(text, '.', byte('0'+ms/100%10), byte('0'+ms/10%10), byte('0'+ms%10)))
	r.Header[TimeoutHeader] = room[:1:1]
	if !isGRPC(r.Request) {
		return
	}
	if theirs, ok := clientDeadline(r.Request); !ok || theirs > left {
		r.Header[grpcTimeout] = []string{formatGRPC(max(left, time.Millisecond))}
	}
}

func isGRPC(hr *http.Request) bool {
	t := hr.Header["Content-Type"]
	if len(t) == 0 {
		return false
	}
	rest, ok := strings.CutPrefix(t[0], "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';' || rest[0] == '-')
}

// clientDeadline is how long a client of gRPC says that it waits.
func clientDeadline(hr *http.Request) (time.Duration, bool) {
	v := hr.Header[grpcTimeout]
	if len(v) != 1 {
		return 0, false
	}
	return parseGRPC(v[0])
}

// parseGRPC reads grpc-timeout (PROTOCOL-HTTP2.md of gRPC): 1 to 8 digits and a
// unit. What is too long for a Duration is as long as that can be.
func parseGRPC(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	const longest = time.Duration(1<<63 - 1)
	if n > uint64(longest/unit) {
		return longest, true
	}
	return time.Duration(n) * unit, true
}

// formatGRPC writes d, which is positive, in the finest unit that has room, and
// rather shorter than longer.
func formatGRPC(d time.Duration) string {
	const most = 99_999_999
	for _, u := range [...]struct {
		unit time.Duration
		name string
	}{{time.Nanosecond, "n"}, {time.Microsecond, "u"}, {time.Millisecond, "m"}, {time.Second, "S"}, {time.Minute, "M"}} {
		if n := d / u.unit; n <= most {
			return strconv.FormatInt(int64(n), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/time.Hour), 10) + "H" // at most 2562047
}

// A bounded is a context with a time to end. It ends by cancel, when the guard
// has been asked whether that is to be obeyed.
type bounded struct {
	context.Context
	at time.Time
}

// Deadline returns the time to end.
func (b *bounded) Deadline() (time.Time, bool) { return b.at, true }
