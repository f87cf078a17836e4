package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/internal/store"
)

// Tokens hold groups and roles: who loses some must not go on with a token of
// before (trap 49), nor who must prove more since (trap 47).
func TestTokensEndWhenRightsChange(t *testing.T) {
	dir := t.TempDir()
	users := filepath.Join(dir, "users.csv")
	if err := os.WriteFile(users, []byte("name,roles\nann,team\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ann := account.Account{ID: "ANN-ID", Name: "ann", Roles: []string{"admin", "team"}, Groups: []string{"ops"}, Created: time.Now()}
	if err := db.Accounts().Create(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	ended := func(since time.Time) bool {
		db, err := store.Open(t.Context(), store.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		list, _, err := db.Tokens().Revocations(t.Context(), "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(list, func(r token.Revocation) bool {
			return r.Kind == token.OfSubject && r.ID == "ANN-ID" && !r.Before.Before(since)
		})
	}
	for _, c := range []struct {
		args  []string
		ended bool
	}{
		{[]string{"set", "ann", "--display", "Ann", "--role", "+team", "--group", "ops"}, false},
		{[]string{"set", "ann", "--role", "-admin"}, true},
		{[]string{"set", "ann", "--role", "+late"}, true},
		{[]string{"set", "ann", "--group", ""}, true},
		{[]string{"import", users, "--update"}, true},
	} {
		time.Sleep(1100 * time.Millisecond) // what ends is told in whole seconds
		began := time.Now().Truncate(time.Second)
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"user", "--data", dir}, c.args...), &out, &out); code != 0 {
			t.Fatalf("%v: %s", c.args, out.String())
		}
		if got := ended(began); got != c.ended {
			t.Errorf("%v: the tokens of before have ended: %v", c.args, got)
		}
	}
}
