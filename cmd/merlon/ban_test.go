package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/secrets"
)

// With Redis in the file, bans by hand are there, and a server that has the
// same Redis obeys them.
func TestBansInRedis(t *testing.T) {
	url := "redis://" + miniredis.RunT(t).Addr()
	dir := t.TempDir()
	file := filepath.Join(dir, "merlon.yaml")
	text := fmt.Sprintf("data: %s/d\nredis: env:TEST_REDIS\nsites:\n  - host: shop.example.com\n    upstream: http://127.0.0.1:1\n", dir)
	t.Setenv("TEST_REDIS", url)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := redis.Dial(secrets.New(url))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	bans := ban.NewBans(live.NewBans(live.Connected(client)), nil, nil)
	guard, err := ban.New(ban.Config{}, ban.Env{Bans: bans})
	if err != nil {
		t.Fatal(err)
	}
	passes := func() bool {
		if err := bans.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := merlontest.Request(t, "GET /")
		r.Site, r.Client = "shop.example.com", netip.MustParseAddr("203.0.113.7")
		return guard.Check(r).Passed()
	}
	do := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		cmd := banCommand()
		cmd.SetArgs(append(args, "-c", file))
		cmd.SetOut(&out)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := do("list"); strings.Count(got, "\n") != 1 || !passes() {
		t.Errorf("at first: %s", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "d")); err == nil {
		t.Error("looking has made the data folder")
	}
	do("add", "203.0.113.0/24", "--site", "shop.example.com")
	if got := do("list"); !strings.Contains(got, "network 203.0.113.0/24") || passes() {
		t.Errorf("banned: %s", got)
	}
	do("lift", "203.0.113.0/24")
	if !passes() {
		t.Error("still banned")
	}
}
