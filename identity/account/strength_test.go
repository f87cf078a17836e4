package account_test

import (
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/identity/account"
)

func TestStrengthOf(t *testing.T) {
	for _, c := range []struct {
		methods string
		want    account.Strength
	}{
		{"", account.None},
		{"mfa", account.None}, // says who?
		{"Password", account.None},
		{"passkeys", account.None},
		{"oidc:", account.None},
		{"password", account.Single},
		{"basic", account.Single},
		{"key", account.Single},
		{"token", account.Single},
		{"totp", account.Single},
		{"recovery", account.Single},
		{"security-key", account.Single},
		{"certificate", account.Single},
		{"oidc:corp", account.Single},
		{"password mfa", account.Single},
		{"token mfa", account.Single},
		{"password basic", account.Single},
		{"password oidc:corp", account.Single},
		{"totp recovery", account.Single},
		{"certificate security-key", account.Single},
		{"certificate totp", account.Single},
		{"key totp", account.Single},
		{"token certificate", account.Single},
		{"password totp", account.Multi},
		{"totp password", account.Multi},
		{"password recovery", account.Multi},
		{"basic totp", account.Multi},
		{"oidc:corp mfa", account.Multi},
		{"oidc:corp totp", account.Multi},
		{"passkey", account.PhishingResistant},
		{"password passkey", account.PhishingResistant},
		{"password security-key", account.PhishingResistant},
		{"password totp security-key", account.PhishingResistant},
		{"password certificate", account.PhishingResistant},
		{"basic certificate", account.PhishingResistant},
		{"oidc:corp security-key", account.PhishingResistant},
	} {
		if got := account.StrengthOf(strings.Fields(c.methods)); got != c.want {
			t.Errorf("%q: got %v, want %v", c.methods, got, c.want)
		}
	}
}

// More proof is never worth less, and the order does not matter.
func TestStrengthOnlyGrows(t *testing.T) {
	words := []string{"password", "totp", "recovery", "passkey", "security-key", "certificate", "basic", "key", "token", "oidc:a", "mfa", "?"}
	for set := range 1 << len(words) {
		var methods, reversed []string
		for i, w := range words {
			if set&(1<<i) != 0 {
				methods = append(methods, w)
				reversed = append([]string{w}, reversed...)
			}
		}
		got := account.StrengthOf(methods)
		if other := account.StrengthOf(reversed); other != got {
			t.Fatalf("%q: %v, the other way round %v", methods, got, other)
		}
		for i := range methods {
			without := append(append([]string{}, methods[:i]...), methods[i+1:]...)
			if less := account.StrengthOf(without); less > got {
				t.Fatalf("%q: %v, but without %q %v", methods, got, methods[i], less)
			}
		}
	}
}

func TestStrengthText(t *testing.T) {
	for s := account.None; s <= account.PhishingResistant; s++ {
		var got account.Strength
		if text, err := s.MarshalText(); err != nil {
			t.Error(err)
		} else if err := got.UnmarshalText(text); err != nil || got != s {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	var got account.Strength
	if err := got.UnmarshalText([]byte("any")); err != nil || got != account.Multi {
		t.Errorf("any: got %v, %v", got, err)
	}
	for _, bad := range []string{"", "ANY", "true", "mfa", "phishing_resistant", "unknown", "1"} {
		got = account.PhishingResistant
		if err := got.UnmarshalText([]byte(bad)); err == nil || got != account.PhishingResistant {
			t.Errorf("%q: got %v, %v", bad, got, err)
		}
	}
	if got := account.Strength(9).String(); got != "unknown" {
		t.Errorf("got %q", got)
	}
}
