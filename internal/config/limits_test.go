package config_test

import (
	"fmt"
	"testing"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/limit"
)

// Settings are inherited one by one, and limits add up.
func TestInheritance(t *testing.T) {
	f, err := config.Parse("f", []byte(`
limit:
  limits: [{by: client, rate: 50/s}]
sites:
- host: a
  limit: {rate: 100/min, burst: 20, by: user, limits: [{name: monthly, by: key, quota: 100000/month}]}
  routes:
  - path: /api/**
    limit: {rate: 10/min, cost: 5}
  - path: /big/**
    limit:
      burst: 30
      by: [tenant, header X-Team]
      quota: 1000/day
      bytes: 10GiB/day
      limits:
      - {name: mine, by: [user, route], concurrent: 3}
  - path: /free/**
    limit: {rate: off}
`))
	if err != nil {
		t.Fatal(err)
	}
	site := f.Sites[0].Guards.Under(f.Guards)
	for i, want := range []string{
		"10/min 20 [user] 5   client monthly", "100/min 30 [tenant header X-Team] 0 1000/day 10GiB/day client monthly mine", "off 20 [user] 0   client monthly",
	} {
		c := f.Sites[0].Routes[i].Guards.Under(site).Limit
		got := fmt.Sprintf("%s %d %v %d %s %s", c.Rate, c.Burst, c.By, c.Cost, c.Quota, c.Bytes)
		for _, l := range c.Limits {
			if l.Name == "" {
				l.Name = l.By[0]
			}
			got += " " + l.Name
		}
		if got != want {
			t.Errorf("route %d: %s\nwant %s", i, got, want)
		}
		if _, err := limit.New(*c, count.NewMemory(count.MemoryConfig{Keys: 8}), nil); err != nil {
			t.Errorf("route %d: %v", i, err)
		}
	}
}

// Mistakes are told where they are written.
func TestMistakesHavePlaces(t *testing.T) {
	for text, want := range map[string]string{
		"limit: {rate: 5}":                            `f:1:15: limit.rate "5": must be a number and a time such as 100/s, 600/min, 10/h or 1/d, or off`,
		"limit: {quota: 5/h}":                         `f:1:16: limit.quota "5/h": must be a number and hour, day, week or month, such as 10000/day, or off; a rate of s, min, h or d is for rate`,
		"limit: {bytes: 5/year}":                      `f:1:16: limit.bytes "5/year": must be a size and s, min, h, d, hour, day, week or month, such as 10GiB/day, or off`,
		"limit: {by: {user: 1}}":                      `f:1:14: limit.by: must be text or a list of texts, in quotes if it holds a colon`,
		"limit: {limits: [{by: user, rates: 5/s}]}":   `f:1:29: limit.limits[0].rates: unknown setting; known here: burst, by, bytes, concurrent, cost, distinct, except, name, quota, rate, roles`,
		"limit: {limits: [{by: user, rate: 5/year}]}": `f:1:35: limit.limits[0].rate "5/year": must be a number and a time such as 100/s, 600/min, 10/h or 1/d, or off`,
	} {
		_, err := config.Parse("f", []byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
}
