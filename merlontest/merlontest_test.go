package merlontest_test

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
)

// guard is a guard that decides by a function.
type guard func(*merlon.Request) merlon.Decision

func (guard) Name() string                              { return "test" }
func (g guard) Check(r *merlon.Request) merlon.Decision { return g(r) }

// good refuses bodies that hold "evil".
func good(r *merlon.Request) merlon.Decision {
	if head, _, err := r.Peek(1 << 10); err == nil && strings.Contains(string(head), "evil") {
		return merlon.Refuse(400, "evil")
	}
	return merlon.Pass("fine")
}

var rows = []merlontest.Case{
	{Name: "no body", Request: "GET /", Want: "fine"},
	{Name: "a good body", Request: "POST /\n\nhello", Want: "fine"},
	{Name: "a bad body", Request: "POST /\n\nevil", Want: "evil", Status: 400},
}

func TestGoodGuardPasses(t *testing.T) {
	merlontest.Run(t, func(*testing.T) merlon.Guard { return guard(good) }, merlontest.Options{}, rows)
}

// Each of these breaks the contract in one way. They are run in a process of
// their own, which must fail and say why.
var bad = map[string]struct {
	guard func() merlon.Guard
	want  string
}{
	"lets_all_pass": {func() merlon.Guard {
		return guard(func(*merlon.Request) merlon.Decision { return merlon.Pass("fine") })
	}, `reason "fine", want "evil"`},
	"refuses_all": {func() merlon.Guard {
		return guard(func(*merlon.Request) merlon.Decision { return merlon.Refuse(400, "evil") })
	}, "was refused"},
	"other_status": {func() merlon.Guard {
		return guard(func(r *merlon.Request) merlon.Decision { d := good(r); d.Status = 403; return d })
	}, "status 403, want 400"},
	"eats_the_body": {func() merlon.Guard {
		return guard(func(r *merlon.Request) merlon.Decision {
			d := good(r)
			if r.Body != nil {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			return d
		})
	}, "the body was not left whole"},
	"answers_otherwise_the_second_time": {func() merlon.Guard {
		var n atomic.Int64
		return guard(func(r *merlon.Request) merlon.Decision {
			d := good(r)
			if n.Add(1)%2 == 0 {
				d.Remedy = "other"
			}
			return d
		})
	}, "asked again"},
	"panics": {func() merlon.Guard { return guard(func(*merlon.Request) merlon.Decision { panic("x") }) }, "guard-failed"},
}

const child = "MERLONTEST_BAD_GUARD"

func TestBadGuard(t *testing.T) {
	name := os.Getenv(child)
	if name == "" {
		t.Skip("run by TestBadGuardsFail")
	}
	merlontest.Run(t, func(*testing.T) merlon.Guard { return bad[name].guard() }, merlontest.Options{}, rows)
}

func TestBadGuardsFail(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(self, "-test.run=^TestBadGuard$")
			cmd.Env = append(os.Environ(), child+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("err %v, want a failure with %q:\n%s", err, c.want, out)
			}
		})
	}
}

func TestRequestCompletesWireText(t *testing.T) {
	r := merlontest.Request(t, "POST /a?b=c\nX-Y: z\n\nhello")
	body, err := io.ReadAll(r.Body)
	if err != nil || string(body) != "hello" || r.Proto != "HTTP/1.1" || r.Host != "shop.example.com" || r.ContentLength != 5 ||
		r.Header.Get("X-Y") != "z" || r.URL.RawQuery != "b=c" || r.Client.String() != "192.0.2.1" {
		t.Errorf("%+v %q %v", r.Request, body, err)
	}
	r = merlontest.Request(t, "GET / HTTP/1.0\r\nhost: other.example\r\n\r\n")
	if r.Proto != "HTTP/1.0" || r.Host != "other.example" || r.ContentLength != 0 {
		t.Errorf("%+v", r.Request)
	}
}
