package limit_test

import (
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
)

// Who is of a tier is held to its numbers, and to no others.
func TestTiers(t *testing.T) {
	c := further(
		limit.Limit{By: limit.By{"user"}, Rate: rate(t, "1/h"), Burst: 9, Roles: []string{"gold"}},
		limit.Limit{By: limit.By{"user"}, Rate: rate(t, "1/h"), Burst: 6, Roles: []string{"silver", "trial"}, Except: []string{"gold"}},
		limit.Limit{Name: "others", By: limit.By{"user"}, Rate: rate(t, "1/h"), Burst: 3, Except: []string{"gold", "silver", "trial"}},
	)
	g := gateOn(t, c, count.NewMemory(count.MemoryConfig{Keys: 1 << 10}))
	as := func(subject string, roles ...string) func(*merlon.Request) {
		return who(merlon.Identity{Subject: subject, Roles: roles})
	}
	for _, one := range []struct {
		what string
		who  func(*merlon.Request)
		want int
		told string // the only limit by role in the policies
	}{
		{"gold", as("ann", "staff", "gold"), 9, "user-gold"},
		{"another of gold", as("ben", "gold"), 9, "user-gold"},
		{"silver", as("cat", "silver"), 6, "user-silver-trial"},
		{"on trial", as("dan", "trial"), 6, "user-silver-trial"},
		{"gold and silver", as("eve", "silver", "gold"), 9, "user-gold"},
		{"none of them", as("fay", "staff"), 3, "others"},
		{"no role", as("gus"), 3, "others"},
		{"another case", as("hal", "Gold"), 3, "others"},
		{"nobody", func(*merlon.Request) {}, 3, "others"},
	} {
		if n := g.passes(t, 20, "GET /", client("192.0.2.1"), one.who); n != one.want {
			t.Errorf("%s: %d passed, want %d", one.what, n, one.want)
		}
		_, d := g.ask(t, "GET /", client("192.0.2.1"), one.who)
		policy := d.Header["Ratelimit-Policy"][0]
		for _, name := range []string{"user-gold", "user-silver-trial", "others"} {
			if strings.Contains(policy, `"`+name+`"`) != (name == one.told) {
				t.Errorf("%s is told %s", one.what, policy)
			}
		}
		if !strings.HasPrefix(d.Header["Ratelimit"][0], `"`+one.told+`";r=0;`) {
			t.Errorf("%s is told %s", one.what, d.Header["Ratelimit"])
		}
	}
}

func TestTierMistakes(t *testing.T) {
	many := make([]string, 33)
	for i := range many {
		many[i] = strings.Repeat("x", i+1)
	}
	for want, l := range map[string]limit.Limit{
		"limits[0].roles[0]":   {Roles: []string{""}},
		"limits[0].roles[1]":   {Roles: []string{"gold", "gold"}},
		"limits[0].except[0]":  {Roles: []string{"gold"}, Except: []string{"gold"}},
		"limits[0].except[32]": {Except: many},
	} {
		l.By, l.Rate = limit.By{"user"}, rate(t, "1/s")
		_, err := limit.New(further(l), count.NewMemory(count.MemoryConfig{Keys: 8}), nil)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want a mistake in %s", err, want)
		}
	}
}
