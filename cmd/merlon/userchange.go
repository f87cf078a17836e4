package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/identity/account"
)

// A userChange is the flags of user set.
type userChange struct {
	groups, roles  []string
	email, display string
	given          func(flag string) bool
}

func userSetCommand(o *office) *cobra.Command {
	var c userChange
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change an account's groups, roles, address or display name",
		Long: `Change what an account is and may. A group or role with + or - before it is added
or removed; without, those that are given replace all that there were. An address
that you give is taken as verified.`,
		Example: `  merlon user set ann --group +ops --role -admin
  merlon user set ann --group staff,ops          these and no others
  merlon user set ann --role ""                  none
  merlon user set ann --email ann@example.org`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			c.given = cmd.Flags().Changed
			if !c.given("group") && !c.given("role") && !c.given("email") && !c.given("display") {
				return errors.New("say what to change: --group, --role, --email or --display")
			}
			if c.email != "" {
				var err error
				if c.email, err = account.FoldEmail(c.email); err != nil {
					return fmt.Errorf("--email: %w", err)
				}
			}
			return o.change(cmd, func(ctx context.Context) error { return c.run(ctx, cmd, o, args[0]) })
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&c.groups, "group", nil, "`groups`: +add, -remove, or all there are to be")
	f.StringSliceVar(&c.roles, "role", nil, "`roles`: +add, -remove, or all there are to be")
	f.StringVar(&c.email, "email", "", "the `address`; an empty one removes it")
	f.StringVar(&c.display, "display", "", "the `name` that pages show")
	return cmd
}

func (c *userChange) run(ctx context.Context, cmd *cobra.Command, o *office, name string) error {
	a, err := o.find(ctx, name)
	if err != nil {
		return err
	}
	var before account.Account
	a, err = o.db.Accounts().Update(ctx, a.ID, func(a *account.Account) error {
		before = *a
		return c.apply(a)
	})
	if errors.Is(err, account.ErrTaken) {
		return fmt.Errorf("the address %s belongs to another account: merlon user list %s", c.email, c.email)
	} else if err != nil {
		return err
	}
	if mayOther(before, a) {
		if err := o.endTokens(ctx, a.ID); err != nil {
			return err
		}
	}
	printf(cmd.OutOrStdout(), "%s: groups %s, roles %s, address %s.\n", a.Name, dash(a.Groups...), dash(a.Roles...), dash(a.Email))
	return o.record(userUpdated, "an account was changed", a, changes(before, a))
}

func (c *userChange) apply(a *account.Account) (err error) {
	if c.given("group") {
		if a.Groups, err = apply("--group", a.Groups, c.groups); err != nil {
			return err
		}
	}
	if c.given("role") {
		if a.Roles, err = apply("--role", a.Roles, c.roles); err != nil {
			return err
		}
	}
	if c.given("email") {
		a.Email, a.EmailVerified = c.email, c.email != ""
	}
	if c.given("display") {
		a.Display = c.display
	}
	return nil
}

// apply changes a list as flags say.
func apply(flag string, have, flags []string) ([]string, error) {
	signed := 0
	for _, f := range flags {
		if strings.HasPrefix(f, "+") || strings.HasPrefix(f, "-") {
			signed++
		}
	}
	if signed == 0 {
		return tidy(flags), nil
	}
	if signed < len(flags) {
		return nil, fmt.Errorf("%s: give each a + or - to add or remove it, or none to replace all", flag)
	}
	have = slices.Clone(have)
	for _, f := range flags {
		have = slices.DeleteFunc(have, func(s string) bool { return s == f[1:] })
		if f[0] == '+' {
			have = append(have, f[1:])
		}
	}
	return tidy(have), nil
}

// changes says what was changed, for the event log.
func changes(before, after account.Account) map[string]string {
	m := map[string]string{}
	for what, v := range map[string][2]string{
		"groups":  {strings.Join(before.Groups, ","), strings.Join(after.Groups, ",")},
		"roles":   {strings.Join(before.Roles, ","), strings.Join(after.Roles, ",")},
		"email":   {before.Email, after.Email},
		"display": {before.Display, after.Display},
	} {
		if v[0] != v[1] {
			m[what], m[what+"_before"] = v[1], v[0]
		}
	}
	return m
}

func userDisableCommand(o *office) *cobra.Command {
	return &cobra.Command{
		Use:   "disable NAME",
		Short: "Let nobody in with an account any longer, and end its sessions",
		Example: `  merlon user disable ann
  merlon user disable ann -c /etc/merlon/merlon.yaml`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.change(cmd, func(ctx context.Context) error {
				a, err := o.find(ctx, args[0])
				if err != nil {
					return err
				}
				a, err = o.db.Accounts().Update(ctx, a.ID, func(a *account.Account) error {
					a.Disabled, a.ValidFrom = true, time.Now()
					return nil
				})
				if err != nil {
					return err
				}
				ended, err := o.signOut(ctx, a.ID)
				err = errors.Join(err, o.record(userUpdated, "an account was disabled", a, map[string]string{"sessions": strconv.Itoa(ended)}))
				if err == nil {
					printf(cmd.OutOrStdout(), "%s is disabled; %s ended.\n", a.Name, plural(ended, "session"))
				}
				return err
			})
		},
	}
}

func userEnableCommand(o *office) *cobra.Command {
	return &cobra.Command{
		Use:     "enable NAME",
		Short:   "Let a disabled account in again; its old sessions stay ended",
		Example: `  merlon user enable ann`,
		Args:    oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.change(cmd, func(ctx context.Context) error {
				a, err := o.find(ctx, args[0])
				if err != nil {
					return err
				}
				a, err = o.db.Accounts().Update(ctx, a.ID, func(a *account.Account) error { a.Disabled = false; return nil })
				if err != nil {
					return err
				}
				printf(cmd.OutOrStdout(), "%s is enabled.\n", a.Name)
				return o.record(userUpdated, "an account was enabled", a, nil)
			})
		},
	}
}

// A reset is the flags of user reset.
type reset struct {
	password, mfa bool
	valid, enrol  time.Duration
	output        string
}

func userResetCommand(o *office) *cobra.Command {
	var r reset
	cmd := &cobra.Command{
		Use:   "reset NAME",
		Short: "Take an account's password, second factors or both away, for its owner to set anew",
		Long: `Take an account's password and second factors away and end its sessions; known
browsers are forgotten. A link is printed that sets a new password, once. With
--password the second factors stay, and with --mfa the password does.

Be sure who asks you for this: it is the way around every second factor. Who has
to have one is given some time to enrol it anew.`,
		Example: `  merlon user reset ann                 everything was lost
  merlon user reset ann --password
  merlon user reset ann --mfa --enrol-within 8h`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.valid <= 0 || r.valid > newLinkLife {
				return fmt.Errorf("--valid %s: must be more than 0s and at most %s", r.valid, newLinkLife)
			}
			if r.enrol < 0 || r.enrol > maxLinkLife {
				return fmt.Errorf("--enrol-within %s: must be from 0s to %s", r.enrol, maxLinkLife)
			}
			if !r.password && !r.mfa {
				r.password, r.mfa = true, true
			}
			return o.change(cmd, func(ctx context.Context) error { return r.run(ctx, cmd, o, args[0]) })
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.password, "password", false, "take the password away and print a link to set a new one")
	f.BoolVar(&r.mfa, "mfa", false, "remove all second factors and recovery codes")
	f.DurationVar(&r.valid, "valid", resetLinkLife, "how `long` the link can be used")
	f.DurationVar(&r.enrol, "enrol-within", 24*time.Hour, "how `long` a second factor that policy asks for may be missing after --mfa")
	addOutput(cmd, &r.output)
	return cmd
}

func (r *reset) run(ctx context.Context, cmd *cobra.Command, o *office, name string) error {
	a, err := o.find(ctx, name)
	if err != nil {
		return err
	}
	// The password first: what is left in between must not let anybody in.
	now := time.Now()
	a, err = o.db.Accounts().Update(ctx, a.ID, func(a *account.Account) error {
		a.ValidFrom = now
		if r.password {
			a.Password, a.PasswordSince, a.MustChange = "", time.Time{}, false
		}
		if r.mfa {
			a.EnrolBy = now.Add(r.enrol)
		}
		return nil
	})
	if err != nil {
		return err
	}
	ended, err := o.signOut(ctx, a.ID)
	err = errors.Join(err, o.db.Accounts().ForgetDevices(ctx, a.ID), o.db.Accounts().DropLinks(ctx, a.ID, account.RecoverLink))
	if r.mfa {
		for _, kind := range []string{account.TOTP, account.Passkey, account.Recovery} {
			err = errors.Join(err, o.db.Accounts().ReplaceFactors(ctx, a.ID, kind, nil))
		}
	}
	what := map[string]string{"taken": "second factors", "sessions": strconv.Itoa(ended)}
	switch {
	case r.password && r.mfa:
		what["taken"] = "everything"
	case r.password:
		what["taken"] = "the password"
	}
	err = errors.Join(err, o.record(userUpdated, "an account was reset", a, what))
	if err != nil {
		return err
	}
	done := a.Name + "'s second factors are removed; " + plural(ended, "session") + " ended"
	switch {
	case r.password && r.mfa:
		done = a.Name + "'s password and second factors are removed; " + plural(ended, "session") + " ended"
	case r.password:
		done = a.Name + "'s password is removed; " + plural(ended, "session") + " ended"
	}
	if !r.password {
		return said(cmd, r.output, a, "", time.Time{}, done)
	}
	url, until, err := o.link(ctx, a.ID, r.valid)
	if err != nil {
		return err
	}
	return said(cmd, r.output, a, url, until, done)
}

func userDeleteCommand(o *office) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove an account and everything that belongs to it",
		Long: `Remove an account with its factors, keys, sessions, consents and history. The
event log keeps what it did. To only keep somebody out, disable the account: a new
one of the same name is another account for backends, but not for people.`,
		Example: `  merlon user delete ann
  merlon user delete ann --yes`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes && !atTerminal(cmd.InOrStdin()) {
				return errors.New("nothing was deleted: without a terminal to ask on, --yes deletes")
			}
			return o.change(cmd, func(ctx context.Context) error {
				a, err := o.find(ctx, args[0])
				if err != nil {
					return err
				}
				if !yes && !confirmed(cmd.InOrStdin(), cmd.ErrOrStderr(), "Delete "+a.Name+" for ever?") {
					return errors.New("nothing was deleted")
				}
				ended, err := o.signOut(ctx, a.ID)
				if err != nil {
					return err
				}
				if err := o.db.Accounts().Delete(ctx, a.ID); err != nil {
					return err
				}
				printf(cmd.OutOrStdout(), "%s is deleted.\n", a.Name)
				return o.record(userDeleted, "an account was deleted", a, map[string]string{"email": a.Email, "sessions": strconv.Itoa(ended)})
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "delete without asking")
	return cmd
}

// confirmed asks for a yes.
func confirmed(in io.Reader, errs io.Writer, question string) bool {
	printf(errs, "%s [y/N] ", question)
	b := make([]byte, 100)
	n, _ := in.Read(b)
	answer := strings.ToLower(strings.TrimSpace(string(b[:n])))
	return answer == "y" || answer == "yes"
}

// plural writes a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
