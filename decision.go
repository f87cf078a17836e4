package merlon

import (
	"errors"
	"net/http"
	"slices"
	"strings"
)

// An Effect is what a decision does with a request.
type Effect uint8

const (
	Deny      Effect = iota // the zero Effect, so that a forgotten decision refuses
	Challenge               // refuse, but say how to be let in
	Allow                   // let it go on
)

// String returns "deny", "challenge" or "allow".
func (e Effect) String() string {
	switch e {
	case Allow:
		return "allow"
	case Challenge:
		return "challenge"
	default:
		return "deny"
	}
}

// MarshalText writes the effect as in [Effect.String].
func (e Effect) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads an effect; what it does not know is Deny.
func (e *Effect) UnmarshalText(b []byte) error {
	switch string(b) {
	case "allow":
		*e = Allow
	case "challenge":
		*e = Challenge
	default:
		*e = Deny
	}
	return nil
}

// A Reason is the stable word for why a guard decided as it did. Tests, the
// event log, the console and the manual all use it; it never changes meaning.
type Reason string

const (
	// GuardFailed: the guard could not decide, so the request is refused.
	GuardFailed Reason = "guard-failed"
	// BodyUnreadable: the request body could not be read to its end.
	BodyUnreadable Reason = "body-unreadable"
	// MemoryFull: the bodies of other requests that guards look at take all the
	// memory that there is for them. If there is more, raise inspect_memory.
	MemoryFull Reason = "memory-full"
)

// A Decision is a guard's answer. The zero Decision refuses with 403.
type Decision struct {
	Effect Effect
	Reason Reason
	// Status of a refusal; 403 if zero. Nothing else about the cause is
	// told to the client.
	Status int
	// Problem is the RFC 9457 type of a refusal where a standard names one;
	// "about:blank" if empty.
	Problem string
	// Location is where a browser that opens a page, or sends a page's form, is
	// sent by a challenge, instead of being told: a path of the same site.
	// Empty if nowhere.
	Location string
	// Header is sent to the client whether the request passed or not, such
	// as RateLimit and Retry-After.
	Header http.Header
	// Close asks for the connection to be closed after the answer.
	Close bool
	// Findings say what the guard saw. For the operator only.
	Findings []Finding
	// Remedy is the smallest piece of configuration, in YAML, that would
	// let exactly this request pass, to be put into its route or site.
	// Empty if there is none.
	Remedy string
	// Err is the cause. For the operator only; never sent to the client.
	Err error
	// Monitored: the decision is recorded, but not obeyed.
	Monitored bool
	// Shadow: the decision is one of a guard's [Shadow], another configuration
	// of it, and is recorded, but not obeyed.
	Shadow bool
}

// A Finding is one thing that a guard saw in a request or response.
type Finding struct {
	Rule    string `json:"rule,omitempty"`    // the rule that matched: "942100"
	Part    string `json:"part,omitempty"`    // where: `query parameter "q"`
	Value   string `json:"value,omitempty"`   // what matched, shortened
	Message string `json:"message,omitempty"` // what it means
}

// Pass returns a decision that allows.
func Pass(reason Reason) Decision { return Decision{Effect: Allow, Reason: reason} }

// Refuse returns a decision that denies with the given HTTP status.
func Refuse(status int, reason Reason) Decision {
	return Decision{Effect: Deny, Reason: reason, Status: status}
}

// Unable returns the decision of a guard that cannot decide: 503.
func Unable(err error) Decision {
	return Decision{Effect: Deny, Reason: GuardFailed, Status: http.StatusServiceUnavailable, Err: err}
}

// Passed reports whether the gate lets the request go on.
func (d Decision) Passed() bool { return d.Effect == Allow || d.Monitored || d.Shadow }

// Code returns the HTTP status of a refusal.
func (d Decision) Code() int {
	if d.Status == 0 {
		return http.StatusForbidden
	}
	return d.Status
}

// A Verdict is one guard's decision about one request.
type Verdict struct {
	Guard    string
	Decision Decision
}

// A LateRefusal is the error of reading a request body, or an answer's, when a
// guard that watches it as it streams has refused the rest of it.
type LateRefusal struct {
	Verdict
}

func (e *LateRefusal) Error() string {
	return e.Guard + ": refused while streaming: " + string(e.Decision.Reason)
}

// ReducedCapacity is the problem type of a server that could serve the request
// at another time (draft-ietf-httpapi-ratelimit-headers).
const ReducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

// BodyFailed turns an error of reading the request body into a decision: the
// one of the guard that refused the rest of it, if a guard did, 400 otherwise.
func BodyFailed(err error) Decision {
	if late, ok := errors.AsType[*LateRefusal](err); ok {
		return late.Decision
	}
	if errors.Is(err, ErrNoRoom) {
		d := Refuse(http.StatusServiceUnavailable, MemoryFull)
		d.Problem = ReducedCapacity
		d.Header = http.Header{"Retry-After": {"1"}}
		d.Err, d.Close = err, true
		return d
	}
	d := Refuse(http.StatusBadRequest, BodyUnreadable)
	d.Err = err
	d.Close = true
	return d
}

// AddHeader sets in dst every field of src. Cookies join those that are there,
// each line once.
func AddHeader(dst, src http.Header) {
	for k, v := range src {
		if k != "Set-Cookie" {
			dst[k] = append(dst[k][:0:0], v...)
			continue
		}
		for _, line := range v {
			if !slices.Contains(dst[k], line) {
				dst[k] = append(dst[k][:len(dst[k]):len(dst[k])], line)
			}
		}
	}
}

// A SettingError says that one setting cannot be used. Constructors return
// them, joined, so that every mistake is reported at once; whoever read the
// configuration adds the place.
type SettingError struct {
	Setting string // path below the package's Config: "exclude[2].rule"
	Value   string // as written; empty if there is none to show
	Rule    string // what must hold: "must be https"
}

func (e *SettingError) Error() string {
	var b strings.Builder
	b.WriteString(e.Setting)
	if e.Value != "" {
		b.WriteString(" \"" + e.Value + "\"")
	}
	b.WriteString(": " + e.Rule)
	return b.String()
}

// BadSetting returns a [SettingError].
func BadSetting(setting, value, rule string) error {
	return &SettingError{setting, value, rule}
}

// Within puts every SettingError in err below the given setting: "tls" turns
// "profile" into "tls.profile". Other errors become the rule of that setting.
func Within(setting string, err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, Within(setting, e))
		}
		return errors.Join(errs...)
	}
	if se, ok := err.(*SettingError); ok {
		sep := "."
		if se.Setting == "" || strings.HasPrefix(se.Setting, "[") {
			sep = ""
		}
		return &SettingError{setting + sep + se.Setting, se.Value, se.Rule}
	}
	return &SettingError{setting, "", err.Error()}
}
