package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/internal/portal"
	"github.com/merlon-dev/merlon/secrets"
)

// The names of events, from the OWASP logging vocabulary.
const (
	userCreated = identity.UserCreated
	userUpdated = identity.UserUpdated
	userDeleted = "user_deleted"
)

func userCommand() *cobra.Command {
	var o office
	cmd := &cobra.Command{
		Use: "user", Short: "Look after the accounts that people log in with",
		Long: `Look after the accounts that people log in with. What is changed here holds in a
running Merlon within a second, and is recorded in the event log.`,
		Example: `  merlon user add ann --email ann@example.com --role admin
  merlon user list
  merlon user reset ann --mfa
  merlon user disable ann`,
		Args: cobra.ArbitraryArgs, RunE: group,
	}
	o.add(cmd)
	cmd.AddCommand(userAddCommand(&o), userListCommand(&o), userSetCommand(&o), userDisableCommand(&o), userEnableCommand(&o),
		userResetCommand(&o), userDeleteCommand(&o), userImportCommand(&o), userExportCommand(&o))
	return cmd
}

// The lives of links that an administrator hands out.
const (
	newLinkLife   = 24 * time.Hour
	resetLinkLife = 15 * time.Minute // NIST SP 800-63B-4, 3.1.3.2 has 10 for codes that are typed; ours has 256 bits
	maxLinkLife   = 7 * 24 * time.Hour
)

// A newUser is the flags of user add.
type newUser struct {
	display, email string
	groups, roles  []string
	ask, invite    bool
	valid          time.Duration
	output         string
}

func userAddCommand(o *office) *cobra.Command {
	var n newUser
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add an account, and print the link by which its owner sets the password",
		Long: `Add an account. A link is printed that is good once; hand it to the owner, who
sets the password there, so that nobody else ever knows it. With --password it is
asked for here instead, and must be changed at the first log-in.

With --invite the account is made only when the link is followed: NAME is then an
address, which will be the log-in name. An address that you give is taken as
verified.`,
		Example: `  merlon user add ann --email ann@example.com --group ops --role admin
  merlon user add ann@example.com --invite --group staff --valid 72h
  merlon user add build-bot --password < password.txt`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if n.valid <= 0 || n.valid > maxLinkLife {
				return fmt.Errorf("--valid %s: must be more than 0s and at most %s", n.valid, maxLinkLife)
			}
			return o.change(cmd, func(ctx context.Context) error { return n.run(ctx, cmd, o, args[0]) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.display, "display", "", "the `name` that pages show")
	f.StringVar(&n.email, "email", "", "the `address`, if NAME is none")
	f.StringSliceVar(&n.groups, "group", nil, "a `group` that the account is in")
	f.StringSliceVar(&n.roles, "role", nil, "a `role` that the account has")
	f.BoolVar(&n.ask, "password", false, "ask for a password on the terminal, or read the first line of standard input")
	f.BoolVar(&n.invite, "invite", false, "only invite; the account is made when the link is followed")
	f.DurationVar(&n.valid, "valid", newLinkLife, "how `long` the link can be used")
	addOutput(cmd, &n.output)
	return cmd
}

func (n *newUser) run(ctx context.Context, cmd *cobra.Command, o *office, name string) error {
	folded, err := account.Fold(name)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	a := account.Account{
		ID: rand.Text(), Name: folded, Display: n.display, Email: n.email, Groups: tidy(n.groups), Roles: tidy(n.roles), Created: time.Now(),
	}
	if a.Email == "" && strings.Contains(folded, "@") {
		a.Email = folded
	}
	if a.Email != "" {
		if a.Email, err = account.FoldEmail(a.Email); err != nil {
			return fmt.Errorf("--email %q: %w", n.email, err)
		}
		a.EmailVerified = true
	}
	if n.invite {
		return n.inviteOnly(ctx, cmd, o, a)
	}
	if n.ask {
		if a.Password, err = newPassword(cmd, o, a); err != nil {
			return err
		}
		a.PasswordSince, a.MustChange = time.Now(), true
	}
	if err := o.db.Accounts().Create(ctx, a); errors.Is(err, account.ErrTaken) {
		return fmt.Errorf("the name %q or the address %q belongs to another account: merlon user list %s", a.Name, a.Email, a.Name)
	} else if err != nil {
		return err
	}
	if err := o.record(userCreated, "an account was added", a, rights(a)); err != nil {
		return err
	}
	if n.ask {
		return said(cmd, n.output, a, "", time.Time{}, a.Name+" is added; the password must be changed at the first log-in")
	}
	url, until, err := o.link(ctx, a.ID, n.valid)
	if err != nil {
		return err
	}
	return said(cmd, n.output, a, url, until, a.Name+" is added")
}

// inviteOnly makes an invitation.
func (n *newUser) inviteOnly(ctx context.Context, cmd *cobra.Command, o *office, a account.Account) error {
	if !strings.Contains(a.Name, "@") || a.Email != a.Name || n.ask || n.display != "" {
		return errors.New("--invite: NAME must be an address, which will be the log-in name; --email, --display and --password do not go with it")
	}
	if c := o.config.Identity; c == nil || c.Register != "invite" && c.Register != "open" {
		return errors.New("--invite: nobody may register here, so that the link would open nothing: write identity: {register: invite}, or leave --invite out, and the account is made at once")
	}
	for _, get := range []func(context.Context, string) (account.Account, error){o.db.Accounts().ByName, o.db.Accounts().ByEmail} {
		if _, err := get(ctx, a.Email); err == nil {
			return fmt.Errorf("%s has an account already: merlon user list %s", a.Email, a.Email)
		} else if !errors.Is(err, account.ErrNotFound) {
			return err
		}
	}
	l, secret, err := identity.NewInvitation(a.Email, a.Groups, a.Roles, time.Now().Add(n.valid))
	if err != nil {
		return err
	}
	if err := o.db.Accounts().AddLink(ctx, l); err != nil {
		return err
	}
	more := rights(a)
	more["email"] = a.Email
	if err := o.record(userCreated, "somebody was invited", account.Account{}, more); err != nil {
		return err
	}
	a.ID = ""
	return said(cmd, n.output, a, o.url(l.Purpose, secret), l.Expires, a.Name+" is invited")
}

// link makes a link by which an account's owner sets the password, once.
func (o *office) link(ctx context.Context, id string, valid time.Duration) (url string, until time.Time, err error) {
	l, secret := identity.NewLink(account.RecoverLink, id, time.Now().Add(valid))
	err = o.db.Accounts().DropLinks(ctx, id, l.Purpose) // trap 50: one at a time
	if err == nil {
		err = o.db.Accounts().AddLink(ctx, l)
	}
	return o.url(l.Purpose, secret), l.Expires, err
}

// url is the portal's page for a link.
func (o *office) url(purpose string, secret secrets.Secret) string {
	page := map[string]string{account.RecoverLink: "recover/link", account.InviteLink: "register/link"}[purpose]
	return o.origin() + portal.Prefix + page + "?token=" + secret.Reveal()
}

// newPassword asks for a password that may be set and returns its hash.
func newPassword(cmd *cobra.Command, o *office, a account.Account) (string, error) {
	h, err := password.New(o.passwordConfig())
	if err != nil {
		return "", err
	}
	text, err := readPassword(cmd, true)
	if err != nil {
		return "", err
	}
	p := passwordPolicy{config: o.passwordConfig(), words: []string{a.Name, a.Display, a.Email}}
	if good, err := p.check(cmd, text); err != nil {
		return "", err
	} else if !good {
		return "", errors.New("nothing was changed: choose another password")
	}
	return h.Hash(cmd.Context(), text)
}

// said tells what was done and how it goes on.
func said(cmd *cobra.Command, output string, a account.Account, url string, until time.Time, what string) error {
	if output == "json" {
		v := map[string]string{"name": a.Name}
		if a.ID != "" {
			v["id"] = a.ID
		}
		if url != "" {
			v["link"], v["until"] = url, until.UTC().Format(time.RFC3339)
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
	}
	printf(cmd.OutOrStdout(), "%s.\n", what)
	if url != "" {
		printf(cmd.OutOrStdout(), "This link sets the password. It is good once, until %s:\n%s\n", until.Local().Format("2006-01-02 15:04 MST"), url)
	}
	return nil
}

// rights are an account's groups and roles for the event log.
func rights(a account.Account) map[string]string {
	m := map[string]string{}
	if len(a.Groups) > 0 {
		m["groups"] = strings.Join(a.Groups, ",")
	}
	if len(a.Roles) > 0 {
		m["roles"] = strings.Join(a.Roles, ",")
	}
	return m
}

// tidy sorts names and drops empty ones.
func tidy(list []string) []string {
	var out []string
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A userLine is an account as it is listed.
type userLine struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Display    string     `json:"display,omitempty"`
	Email      string     `json:"email,omitempty"`
	Verified   bool       `json:"email_verified"`
	Groups     []string   `json:"groups"`
	Roles      []string   `json:"roles"`
	Disabled   bool       `json:"disabled"`
	Password   bool       `json:"has_password"`
	MustChange bool       `json:"must_change_password"`
	Factors    []string   `json:"factors"`
	Created    time.Time  `json:"created"`
	LastLogIn  *time.Time `json:"last_login,omitempty"`
}

func userListCommand(o *office) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list [TEXT]",
		Short: "Show accounts, all of them or those whose name or address contains a text",
		Example: `  merlon user list
  merlon user list @example.com
  merlon user list -o json | jq -r 'select(.disabled) | .name'`,
		Args: func(cmd *cobra.Command, args []string) error { return noArgs(cmd, args[min(1, len(args)):]) },
		RunE: func(cmd *cobra.Command, args []string) error {
			filter := strings.Join(args, "")
			return o.look(cmd, func(ctx context.Context) error {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
				if output != "json" {
					printf(table, "NAME\tSTATE\tADDRESS\tGROUPS\tROLES\tSECOND FACTOR\tLAST LOG-IN\n")
				}
				err := o.each(ctx, filter, func(a account.Account) error {
					l, err := o.line(ctx, a)
					if err != nil {
						return err
					}
					if output == "json" {
						return enc.Encode(l)
					}
					last := time.Time{}
					if l.LastLogIn != nil {
						last = *l.LastLogIn
					}
					printf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.state(), dash(l.Email), dash(l.Groups...), dash(l.Roles...), dash(l.Factors...), day(last))
					return nil
				})
				if err == nil && output != "json" {
					err = table.Flush()
				}
				return err
			})
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func (l *userLine) state() string {
	switch {
	case l.Disabled:
		return "disabled"
	case !l.Password && len(l.Factors) == 0:
		return "no password yet"
	case l.MustChange:
		return "must change the password"
	}
	return "active"
}

// line collects what is listed of an account.
func (o *office) line(ctx context.Context, a account.Account) (*userLine, error) {
	l := &userLine{
		ID: a.ID, Name: a.Name, Display: a.Display, Email: a.Email, Verified: a.EmailVerified, Groups: list(a.Groups), Roles: list(a.Roles),
		Disabled: a.Disabled, Password: a.Password != "", MustChange: a.MustChange, Created: a.Created, Factors: []string{},
	}
	factors, err := o.db.Accounts().Factors(ctx, a.ID)
	if err != nil {
		return nil, err
	}
	codes := 0
	for _, f := range factors {
		if f.Kind == account.Recovery {
			codes++
		} else if !slices.Contains(l.Factors, f.Kind) {
			l.Factors = append(l.Factors, f.Kind)
		}
	}
	if codes > 0 {
		l.Factors = append(l.Factors, fmt.Sprintf("%d codes", codes))
	}
	history, err := o.db.Accounts().History(ctx, a.ID, 100)
	if err != nil {
		return nil, err
	}
	for _, h := range history {
		if h.Result == "ok" {
			l.LastLogIn = &h.Time
			break
		}
	}
	return l, nil
}

// list is never null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
