package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/token"
)

func sessionCommand() *cobra.Command {
	var o office
	cmd := &cobra.Command{
		Use: "session", Short: "Show who is logged in, and end that",
		Example: `  merlon session list
  merlon session end --user ann
  merlon session end --all`,
		Args: cobra.ArbitraryArgs, RunE: group,
	}
	o.add(cmd)
	cmd.AddCommand(sessionListCommand(&o), sessionEndCommand(&o))
	return cmd
}

// A sessionLine is a session as it is listed.
type sessionLine struct {
	ID      string    `json:"id"`
	Account string    `json:"account"`
	Name    string    `json:"name"`
	Site    string    `json:"site,omitempty"`
	Methods []string  `json:"methods"`
	Level   int       `json:"level"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"`
	Expires time.Time `json:"expires"`
	Until   time.Time `json:"until"`
	Client  string    `json:"client"`
	Agent   string    `json:"agent,omitempty"`
}

// those calls do with the account that is named, or with every one.
func (o *office) those(ctx context.Context, name string, do func(account.Account) error) error {
	if name == "" {
		return o.each(ctx, "", do)
	}
	a, err := o.find(ctx, name)
	if err != nil {
		return err
	}
	return do(a)
}

func sessionListCommand(o *office) *cobra.Command {
	var name, output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the sessions that hold, of everybody or of one account",
		Example: `  merlon session list
  merlon session list --user ann -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.look(cmd, func(ctx context.Context) error {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
				if output != "json" {
					printf(table, "ID\tACCOUNT\tSITE\tFROM\tBY\tSINCE\tLAST SEEN\tENDS\n")
				}
				err := o.those(ctx, name, func(a account.Account) error {
					list, err := o.sessions.List(ctx, a.ID, time.Now())
					for _, s := range list {
						client := ""
						if s.Client.IsValid() {
							client = s.Client.String()
						}
						if output == "json" {
							err = errors.Join(err, enc.Encode(sessionLine{s.ID, a.ID, a.Name, s.Site, s.Methods, s.Level, s.Created, s.Seen, s.Expires, s.Until, client, s.Agent}))
						} else {
							printf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, a.Name, dash(s.Site), dash(client), dash(s.Methods...), day(s.Created), day(s.Seen), day(s.Expires))
						}
					}
					return err
				})
				if err == nil && output != "json" {
					err = table.Flush()
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&name, "user", "", "only those of this `account`")
	addOutput(cmd, &output)
	return cmd
}

func sessionEndCommand(o *office) *cobra.Command {
	var name, id string
	var everybody bool
	cmd := &cobra.Command{
		Use:   "end",
		Short: "End sessions, everywhere and at once, with the tokens that came of them",
		Example: `  merlon session end --user ann
  merlon session end --user ann --id OXW4ZT2BDC5KQ7LRUHJ3MNEV6A
  merlon session end --all`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case name == "" && !everybody:
				return errors.New("say whose: --user NAME, or --all for everybody's")
			case name != "" && everybody:
				return errors.New("--all: is everybody's; --user does not go with it")
			case id != "" && name == "":
				return errors.New("--id: is for one session of one account; name it with --user")
			}
			return o.change(cmd, func(ctx context.Context) error {
				total, accounts := 0, 0
				var one account.Account
				err := o.those(ctx, name, func(a account.Account) error {
					one = a
					ended, err := o.endSessions(ctx, a, id)
					total, accounts = total+ended, accounts+1
					return err
				})
				what := map[string]string{"sessions": strconv.Itoa(total)}
				if everybody {
					one, what["accounts"] = account.Account{}, "all"
				}
				if id != "" {
					what["which"] = id // a name with "session" in it would be hidden
				}
				if err == nil && id != "" && total == 0 {
					return fmt.Errorf("%s has no session %s: merlon session list --user %s", one.Name, id, one.Name)
				}
				err = errors.Join(err, o.record("session_expired", "sessions were ended", one, what))
				if err == nil {
					printf(cmd.OutOrStdout(), "%s ended.\n", plural(total, "session"))
				}
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "user", "", "those of this `account`")
	f.StringVar(&id, "id", "", "only the one with this `id`, as merlon session list shows it")
	f.BoolVar(&everybody, "all", false, "those of everybody")
	return cmd
}

// endSessions ends all sessions of an account, or one.
func (o *office) endSessions(ctx context.Context, a account.Account, id string) (int, error) {
	if id == "" {
		return o.signOut(ctx, a.ID)
	}
	ended, err := o.sessions.End(ctx, session.Where{Account: a.ID, ID: id})
	if err != nil || len(ended) == 0 {
		return 0, err
	}
	now := time.Now().Truncate(time.Second)
	_, gerr := provider.EndGrants(ctx, o.db.Grants(), a.ID, id, now)
	return 1, errors.Join(gerr,
		o.db.Tokens().Revoke(ctx, token.Revocation{Kind: token.OfSession, ID: id, Expires: now.Add(tokenLife)}, now),
		o.db.Tokens().RevokeFamilies(ctx, "", id))
}
