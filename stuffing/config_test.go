package stuffing_test

import (
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/merlon-dev/merlon/stuffing"
)

func TestNew(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*stuffing.Config)
		want   string
	}{
		"no path":         {func(c *stuffing.Config) { c.Path = nil }, "path: must be set"},
		"no user":         {func(c *stuffing.Config) { c.UserField = nil }, "user_field: must be set"},
		"a relative path": {func(c *stuffing.Config) { c.Path = stuffing.List{"/a", "login"} }, `path[1] "login": must begin`},
		"a bad pattern":   {func(c *stuffing.Config) { c.Path = stuffing.List{"/[a"} }, `path[0] "/[a": must be a path`},
		"a bad method":    {func(c *stuffing.Config) { c.Methods = stuffing.List{"post"} }, `methods[0] "post"`},
		"a bad field":     {func(c *stuffing.Config) { c.PasswordField = "a\x00" }, "password_field"},
		"a bad status":    {func(c *stuffing.Config) { c.Failed.Status = stuffing.Statuses{500} }, `failed.status[0] "500": must be from 200 to 499`},
		"a bad cookie":    {func(c *stuffing.Config) { c.Success.Cookie = "a=b" }, `success.cookie "a=b"`},
		"an empty canary": {func(c *stuffing.Config) { c.Canaries = stuffing.List{""} }, "canaries[0]: must not be empty"},
		"slow":            {func(c *stuffing.Config) { c.Slow = time.Minute }, `slow "1m0s": must be from 1s to 30s`},
		"at once":         {func(c *stuffing.Config) { c.AtOnce = 21 }, `at_once "21"`},
		"share":           {func(c *stuffing.Config) { c.Share = 5 }, `share "5"`},
		"a schedule":      {func(c *stuffing.Config) { c.Pair.Free = -1 }, `pair.free "-1"`},
		"users":           {func(c *stuffing.Config) { c.Users.Longest = time.Second }, `users.longest "1s": must not be shorter than first`},
		"addresses":       {func(c *stuffing.Config) { c.Addresses.Forget = time.Millisecond }, `addresses.forget "1ms"`},
	} {
		t.Run(what, func(t *testing.T) {
			conf := config()
			c.change(&conf)
			_, err := stuffing.New(conf, stuffing.Env{Key: key(t)})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	if _, err := stuffing.New(config(), stuffing.Env{}); err == nil {
		t.Error("no key, no error")
	}
	_, err := stuffing.New(stuffing.Config{Slow: 1, AtOnce: -1, Alarm: 1}, stuffing.Env{Key: key(t)})
	for _, want := range []string{"path", "user_field", "slow", "at_once", "alarm"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in %v", want, err)
		}
	}
}

// TestYAML: the forms that the manual shows.
func TestYAML(t *testing.T) {
	var c stuffing.Config
	err := yaml.Unmarshal([]byte("path: /api/login\nuser_field: [email, username]\nfailed: {status: 401, location: \"/login?error*\"}\nsuccess: {cookie: session}\ncanaries: [a, b]\nslow: 2s\npair: {free: 3}\n"), &c)
	if err != nil || len(c.Path) != 1 || len(c.UserField) != 2 || len(c.Failed.Status) != 1 || len(c.Failed.Location) != 1 || c.Pair.Free != 3 || c.Slow != 2*time.Second {
		t.Errorf("%+v, %v", c, err)
	}
}
