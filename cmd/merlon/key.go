package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/apikey"
)

func keyCommand() *cobra.Command {
	var o office
	cmd := &cobra.Command{
		Use: "key", Short: "Make, show and revoke API keys for programs",
		Example: `  merlon key create deploy --user build-bot --scope deploy --expires 90d
  merlon key list
  merlon key revoke mk_ABCDEFGHIJKLMNOP`,
		Args: cobra.ArbitraryArgs, RunE: group,
	}
	o.add(cmd)
	cmd.AddCommand(keyCreateCommand(&o), keyListCommand(&o), keyRevokeCommand(&o))
	return cmd
}

// A keyLine is a key as it is listed.
type keyLine struct {
	Key      string     `json:"key"`              // its beginning
	Secret   string     `json:"secret,omitempty"` // only when it is made
	Account  string     `json:"account"`
	Name     string     `json:"name"`
	Scopes   []string   `json:"scopes"`
	Networks []string   `json:"networks"`
	State    string     `json:"state"`
	Created  time.Time  `json:"created"`
	Expires  *time.Time `json:"expires,omitempty"`
	Revoked  *time.Time `json:"revoked,omitempty"`
	Used     *time.Time `json:"used,omitempty"`
	UsedFrom string     `json:"used_from,omitempty"`
}

func lineOf(k apikey.Key, owner string, now time.Time) keyLine {
	l := keyLine{Key: k.Prefix(), Account: owner, Name: k.Name, Scopes: list(k.Scopes), Networks: []string{}, State: "holds", Created: k.Created}
	for _, n := range k.Networks {
		l.Networks = append(l.Networks, n.String())
	}
	if !k.Expires.IsZero() {
		l.Expires = &k.Expires
		if !k.Expires.After(now) {
			l.State = "expired"
		}
	}
	if !k.Revoked.IsZero() {
		l.Revoked, l.State = &k.Revoked, "revoked"
	}
	if !k.Used.IsZero() {
		l.Used = &k.Used
	}
	if k.UsedFrom.IsValid() {
		l.UsedFrom = k.UsedFrom.String()
	}
	return l
}

func keyCreateCommand(o *office) *cobra.Command {
	var owner, expires, output string
	var scopes, networks []string
	cmd := &cobra.Command{
		Use:   "create NAME --user ACCOUNT",
		Short: "Make a key and print it, this once",
		Long: `Make a key by which a program acts for an account, and print it. Only a hash is
kept, so it cannot be shown again. NAME says what it is for.`,
		Example: `  merlon key create deploy --user build-bot --scope deploy --expires 90d
  merlon key create backup --user backup --network 10.8.0.0/16 --expires never -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("say in one word what the key is for: merlon key create NAME --user ACCOUNT")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if owner == "" {
				return errors.New("say whom the key acts for: --user ACCOUNT")
			}
			k := apikey.Key{Name: args[0], Scopes: tidy(scopes)}
			var err error
			if k.Expires, err = end(expires, time.Now()); err != nil {
				return fmt.Errorf("--expires: %w", err)
			}
			for _, n := range networks {
				p, err := netip.ParsePrefix(n)
				if a, aerr := netip.ParseAddr(n); err != nil && aerr == nil {
					p, err = a.Prefix(a.BitLen())
				}
				if err != nil {
					return fmt.Errorf("--network %q: must be a network such as 10.8.0.0/16 or an address", n)
				}
				k.Networks = append(k.Networks, p)
			}
			return o.change(cmd, func(ctx context.Context) error { return o.createKey(ctx, cmd, owner, k, output) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&owner, "user", "", "the `account` that it acts for")
	f.StringSliceVar(&scopes, "scope", nil, "a `scope` that it has; without any it may nothing that asks for one")
	f.StringSliceVar(&networks, "network", nil, "a `network` that it may be used from (default anywhere)")
	f.StringVar(&expires, "expires", "90d", "how `long` it holds, 12h or 90d; or never")
	addOutput(cmd, &output)
	return cmd
}

func (o *office) createKey(ctx context.Context, cmd *cobra.Command, owner string, k apikey.Key, output string) error {
	a, err := o.find(ctx, owner)
	if err != nil {
		return err
	}
	k.Account = a.ID
	text, k, err := apikey.New(o.db.Keys(), o.db.Accounts()).Issue(ctx, k)
	if err != nil {
		return err
	}
	l := lineOf(k, a.Name, time.Now())
	what := map[string]string{"key": k.Prefix(), "name": k.Name, "scopes": strings.Join(k.Scopes, " "), "networks": strings.Join(l.Networks, " "), "expires": "never"}
	if l.Expires != nil {
		what["expires"] = k.Expires.UTC().Format(time.RFC3339)
	}
	if err := o.record("authn_token_created", "an API key was made", a, what); err != nil {
		return err
	}
	l.Secret = text.Reveal()
	if output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(l)
	}
	printf(cmd.OutOrStdout(), "%s\n", l.Secret)
	printf(cmd.ErrOrStderr(), "This is the key, which cannot be shown again. Send it as Authorization: Bearer or X-API-Key.\n")
	return nil
}

// end reads how long something holds; zero is for ever.
func end(text string, now time.Time) (time.Time, error) {
	if text == "never" {
		return time.Time{}, nil
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		n = min(n, 36500)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 {
		return time.Time{}, fmt.Errorf("%q: must be a time such as 12h or 90d, or never", text)
	}
	return now.Add(d), nil
}

func keyListCommand(o *office) *cobra.Command {
	var owner, output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show API keys, the newest first; not their secrets, which nobody has",
		Example: `  merlon key list
  merlon key list --user build-bot -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.look(cmd, func(ctx context.Context) error {
				id, names := "", map[string]string{}
				if owner != "" {
					a, err := o.find(ctx, owner)
					if err != nil {
						return err
					}
					id = a.ID
				}
				keys, err := o.db.Keys().Keys(ctx, id)
				if err != nil {
					return err
				}
				var lines []keyLine
				for _, k := range keys {
					if _, ok := names[k.Account]; !ok {
						a, err := o.db.Accounts().Account(ctx, k.Account)
						if err != nil && !errors.Is(err, account.ErrNotFound) {
							return err
						}
						names[k.Account] = a.Name
					}
					lines = append(lines, lineOf(k, names[k.Account], time.Now()))
				}
				return printKeys(cmd, lines, output)
			})
		},
	}
	cmd.Flags().StringVar(&owner, "user", "", "only those of this `account`")
	addOutput(cmd, &output)
	return cmd
}

func printKeys(cmd *cobra.Command, lines []keyLine, output string) error {
	if output == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetEscapeHTML(false)
		for _, l := range lines {
			if err := enc.Encode(l); err != nil {
				return err
			}
		}
		return nil
	}
	when := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return day(*t)
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
	printf(table, "KEY\tACCOUNT\tNAME\tSTATE\tSCOPES\tNETWORKS\tEXPIRES\tLAST USED\n")
	for _, l := range lines {
		printf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Key, dash(l.Account), dash(l.Name), l.State, dash(l.Scopes...), dash(l.Networks...), when(l.Expires), when(l.Used))
	}
	return table.Flush()
}

func keyRevokeCommand(o *office) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke KEY",
		Short:   "Let a key hold no longer; name it by its beginning, as merlon key list shows it",
		Example: `  merlon key revoke mk_ABCDEFGHIJKLMNOP`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one key by its beginning, as merlon key list shows it: merlon key revoke KEY")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.change(cmd, func(ctx context.Context) error {
				keys, err := o.db.Keys().Keys(ctx, "")
				if err != nil {
					return err
				}
				i := slices.IndexFunc(keys, func(k apikey.Key) bool {
					// The whole key is taken as well: who finds one that leaked has that.
					return args[0] == k.ID || args[0] == k.Prefix() || strings.HasPrefix(args[0], k.Prefix()+"_")
				})
				if i < 0 {
					return errors.New("there is no such key; merlon key list shows them")
				}
				k := keys[i]
				a, err := o.db.Accounts().Account(ctx, k.Account)
				if err != nil {
					return err
				}
				if err := o.db.Keys().RevokeKey(ctx, k.ID, time.Now()); err != nil {
					return err
				}
				printf(cmd.OutOrStdout(), "%s (%s, of %s) holds no longer.\n", k.Prefix(), k.Name, a.Name)
				return o.record("authn_token_revoked", "an API key was revoked", a, map[string]string{"key": k.Prefix(), "name": k.Name})
			})
		},
	}
}
