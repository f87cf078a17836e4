package redis_test

import (
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
)

func has(text, part string) bool { return strings.Contains(text, part) }

func TestBadURLs(t *testing.T) {
	for _, at := range []string{
		"", "localhost:6379", "http://s3cret@localhost", "redis://:s3cret@localhost:6379/x", "redis://:s3cret@%zz",
		"rediss://:s3cret@127.0.0.1:1?skip_verify=true", "redis://:s3cret@127.0.0.1:1?ca=/etc/passwd",
		"rediss://:s3cret@127.0.0.1:1?ca=/etc/passwd", "rediss://:s3cret@127.0.0.1:1?ca=/nowhere", "redis://:s3cret@127.0.0.1:1?adr=x",
		"redis://:s3cret@127.0.0.1:1",
	} {
		c, err := redis.Dial(secrets.New(at))
		if err == nil {
			c.Close()
			t.Errorf("%q is taken", at)
		} else if has(err.Error(), "s3cret") {
			t.Errorf("%q: the error repeats the password: %v", at, err)
		}
	}
}
