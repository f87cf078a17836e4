package loose_test

import (
	"testing"

	"github.com/merlon-dev/merlon/internal/loose"
)

func TestCase(t *testing.T) {
	for in, want := range map[string]string{"": "", "/Api/LOGIN": "/api/login", "/log\u0131n": "/login", "/\u017fecret": "/secret", "/\u00dcber": "/\u00fcber", "/\xff": "/\ufffd"} {
		if got := loose.Case(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
