package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/internal/store/live"
)

func banCommand() *cobra.Command {
	var o office
	cmd := &cobra.Command{
		Use: "ban", Short: "Show who is shut out, shut somebody out, and let them in again",
		Example: `  merlon ban list
  merlon ban add 203.0.113.0/24 --for 24h
  merlon ban lift 203.0.113.7`,
		Args: cobra.ArbitraryArgs, RunE: group,
	}
	o.add(cmd)
	cmd.AddCommand(banListCommand(&o), banAddCommand(&o), banLiftCommand(&o), banForgiveCommand(&o))
	return cmd
}

// A banLine is a ban as it is listed.
type banLine struct {
	ban.Ban
	Name string `json:"name,omitempty"` // of a user
}

// bans are those that the server uses: in Redis if it has one, or else in the
// database, which is open then.
func (o *office) bans() ban.Store {
	if o.redis != nil {
		return live.NewBans(o.redis)
	}
	return o.db.Bans()
}

// lookAtBans runs do with the bans that there are, and makes nothing: without
// a database there are none, but for those in Redis.
func (o *office) lookAtBans(cmd *cobra.Command, do func(context.Context, []ban.Ban) error) error {
	read := func(ctx context.Context) error {
		all, _, err := o.bans().List(ctx, "")
		if err != nil {
			return err
		}
		return do(ctx, inOrder(all))
	}
	err := o.look(cmd, read)
	if !errors.Is(err, errNoAccounts) {
		return err
	}
	if o.config.Redis == "" {
		return do(cmd.Context(), nil)
	}
	defer o.reach()()
	return read(cmd.Context())
}

// inOrder returns the bans that hold, the newest first.
func inOrder(all []ban.Ban) []ban.Ban {
	now := time.Now()
	all = slices.DeleteFunc(all, func(b ban.Ban) bool { return !b.Holds(now) })
	slices.SortFunc(all, func(a, b ban.Ban) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Site, b.Site))
	})
	return all
}

func banListCommand(o *office) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the bans that hold, the newest first",
		Example: `  merlon ban list
  merlon ban list -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.lookAtBans(cmd, func(ctx context.Context, all []ban.Ban) error {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
				if output != "json" {
					printf(table, "WHO\tSITE\tSINCE\tENDS\tTIMES\tBY\tWHY\n")
				}
				var errs []error
				for _, b := range all {
					l := banLine{b, o.nameOf(ctx, b.Key)}
					if output == "json" {
						errs = append(errs, enc.Encode(l))
						continue
					}
					who := b.Key
					if l.Name != "" {
						who = "user:" + l.Name
					}
					printf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", dash(who), dash(cmp.Or(b.Site, "all")), day(b.Since), day(b.Until), b.Times, dash(b.By), dash(b.Why))
				}
				if output == "json" {
					return errors.Join(errs...)
				}
				return table.Flush()
			})
		},
	}
	addOutput(cmd, &output)
	return cmd
}

// nameOf returns the log-in name of a banned user, if there is one.
func (o *office) nameOf(ctx context.Context, key string) string {
	subject, ok := strings.CutPrefix(key, "user ")
	if !ok || o.db == nil {
		return ""
	}
	a, err := o.db.Accounts().Account(ctx, subject)
	if err != nil {
		return "" // the account is gone; its ban is still shown
	}
	return a.Name
}

// banned returns the key that somebody is banned by, from what was typed, and
// the account if it is one's.
func (o *office) banned(ctx context.Context, text string) (string, account.Account, error) {
	if name, ok := strings.CutPrefix(text, "user:"); ok {
		a, err := o.find(ctx, name)
		return ban.KeyOfUser(a.ID), a, err
	}
	text = strings.Replace(text, "key:", "key ", 1)
	if secret, ok := strings.CutPrefix(text, "key mk_"); ok {
		begin, _, _ := strings.Cut(secret, "_") // who finds a key that leaked has the whole
		text = "key mk_" + begin
	}
	key, err := ban.ParseKey(text)
	if err != nil {
		return "", account.Account{}, fmt.Errorf("%q: must be an address, a network, user:NAME or key:mk_…: %w", text, err)
	}
	return key, account.Account{}, nil
}

// siteNamed returns the name of the site that answers to a host; empty for all.
func (o *office) siteNamed(host string) (string, error) {
	if host == "" {
		return "", nil
	}
	var names []string
	for _, s := range o.config.Sites {
		if len(s.Host) == 0 {
			continue
		}
		if slices.ContainsFunc(s.Host, func(h string) bool { return strings.EqualFold(h, host) }) {
			return s.Host[0], nil
		}
		names = append(names, s.Host[0])
	}
	if len(names) == 0 {
		return "", fmt.Errorf("--site %q: there is no configuration file with sites; -c names one", host)
	}
	return "", fmt.Errorf("--site %q: must be one of %s", host, strings.Join(names, ", "))
}

func oneBanned(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one address, network, user or key: %s 203.0.113.7", cmd.CommandPath())
	}
	return nil
}

// longestBan is how long a ban by hand may be: longer is what address.deny is for.
const longestBan = 366 * 24 * time.Hour

func banAddCommand(o *office) *cobra.Command {
	var site, length, why string
	cmd := &cobra.Command{
		Use:   "add WHO",
		Short: "Shut out an address, a network, a user or an API key for a while",
		Long: `Shut out an address, a network, a user or an API key for a while. Running servers
know within seconds. A ban of an address is for those who prove nobody, and does
not hold for addresses in ban.allow; of an IPv6 address it is for the /64 network.
Somebody who is banned already is banned anew, for longer or shorter.`,
		Example: `  merlon ban add 203.0.113.7
  merlon ban add 203.0.113.0/24 --for 7d --why scanner
  merlon ban add user:alice --site shop.example.com
  merlon ban add key:mk_ABCDEFGHIJKLMNOP --for 1h`,
		Args: oneBanned,
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now().UTC().Truncate(time.Microsecond)
			until, err := end(length, now)
			if err != nil || until.IsZero() || until.After(now.Add(longestBan)) {
				return fmt.Errorf("--for %q: must be a time such as 12h or 90d, at most 366d", length)
			}
			if len(why) > 200 {
				return errors.New("--why: must have at most 200 bytes")
			}
			return o.change(cmd, func(ctx context.Context) error {
				name, err := o.siteNamed(site)
				if err != nil {
					return err
				}
				key, who, err := o.banned(ctx, args[0])
				if err != nil {
					return err
				}
				b := ban.Ban{Site: name, Key: key, Since: now, Until: until, Times: 1, Why: cmp.Or(why, "by hand"), By: operator()}
				bans := o.bans()
				// One that ends later would stay.
				if _, err := bans.Lift(ctx, b.Site, b.Key); err != nil {
					return err
				}
				if _, err := bans.Put(ctx, []ban.Ban{b}, ban.Most, now); err != nil {
					return err
				}
				printf(cmd.OutOrStdout(), "%s is banned %s until %s.\n", shownKey(key, who), where(name), day(until))
				return o.record("ban_added", "somebody was banned by hand", who,
					map[string]string{"banned": key, "site": name, "until": until.Format(time.RFC3339), "why": b.Why})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&length, "for", "1h", "how `long`, 30m, 12h or 90d")
	f.StringVar(&site, "site", "", "only at the site with this `host`; all sites if it is not given")
	f.StringVar(&why, "why", "", "the `reason`, for those who list bans")
	return cmd
}

func banLiftCommand(o *office) *cobra.Command {
	var site string
	cmd := &cobra.Command{
		Use:   "lift WHO",
		Short: "End a ban at once, and forget that there was one",
		Example: `  merlon ban lift 203.0.113.7
  merlon ban lift user:alice --site shop.example.com`,
		Args: oneBanned,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.change(cmd, func(ctx context.Context) error {
				name, err := o.siteNamed(site)
				if err != nil {
					return err
				}
				key, who, err := o.banned(ctx, args[0])
				if err != nil {
					return err
				}
				n, err := lift(ctx, o.bans(), name, key)
				if err != nil {
					return err
				}
				printf(cmd.OutOrStdout(), "%s is banned no longer %s; %s lifted.\n", shownKey(key, who), where(name), plural(n, "ban"))
				return o.record("ban_lifted", "a ban was lifted", who, map[string]string{"banned": key, "site": name})
			})
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only the ban at the site with this `host`; at all sites if it is not given")
	return cmd
}

// lift lifts the bans of a key, at one site or wherever there are any.
func lift(ctx context.Context, s ban.Store, site, key string) (n int, err error) {
	all, _, err := s.List(ctx, "")
	if err != nil {
		return 0, err
	}
	now := time.Now()
	wider := ""
	for _, b := range all {
		if b.Key != key {
			if b.Holds(now) && covers(b.Key, key) {
				wider = b.Key
			}
			continue
		}
		if site != "" && b.Site != site {
			continue
		}
		ok, err := s.Lift(ctx, b.Site, b.Key)
		if err != nil {
			return n, err
		}
		if ok {
			n++
		}
	}
	switch {
	case n > 0:
		return n, nil
	case wider != "":
		return 0, fmt.Errorf("%s is banned with all of %s: merlon ban lift %s", key, wider, strings.TrimPrefix(wider, "network "))
	}
	return 0, fmt.Errorf("%s is not banned %s; merlon ban list shows who is", key, where(site))
}

// covers reports whether a banned network has another address or network in it.
func covers(network, key string) bool {
	p, err := netip.ParsePrefix(strings.TrimPrefix(network, "network "))
	if err != nil {
		return false
	}
	if a, err := netip.ParseAddr(strings.TrimPrefix(key, "client ")); err == nil {
		return p.Contains(a)
	}
	in, err := netip.ParsePrefix(strings.TrimPrefix(key, "network "))
	return err == nil && in.Bits() > p.Bits() && p.Contains(in.Addr())
}

func where(site string) string {
	if site == "" {
		return "at all sites"
	}
	return "at " + site
}

func shownKey(key string, who account.Account) string {
	if who.Name != "" {
		return "user " + who.Name
	}
	return key
}

func banForgiveCommand(o *office) *cobra.Command {
	var site string
	cmd := &cobra.Command{
		Use:   "forgive NAME --site HOST",
		Short: "Forget a user's failed tries at a log-in that a backend owns",
		Long: `Forget a user's failed tries at a log-in that a backend owns (backend_login), so that
they get in from a browser that is not known yet. Tries that are counted in Redis
are forgotten at once; without Redis they are in the memory of the running
Merlon, and restarting it forgets them.`,
		Example: `  merlon ban forgive ann@example.com --site shop.example.com`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return fmt.Errorf("name one user, as at the log-in: %s ann@example.com --site shop.example.com", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.change(cmd, func(ctx context.Context) error {
				name, err := o.siteNamed(site)
				if err != nil {
					return err
				}
				if name == "" {
					return errors.New("--site must be given: the host of the site with the log-in")
				}
				if o.config.Redis == "" {
					return errors.New("failed tries are in the memory of the running Merlon, since there is no redis; restarting it forgets them")
				}
				err = gateway.Forgive(ctx, o.config, live.NewTries(o.redis), name, args[0])
				if errors.Is(err, gateway.ErrNoLogin) {
					return fmt.Errorf("%s %w", name, err)
				}
				if err != nil {
					return err
				}
				printf(cmd.OutOrStdout(), "What %s has failed at the log-in of %s is forgotten.\n", args[0], name)
				return o.record("tries_forgiven", "failed tries were forgotten", account.Account{}, map[string]string{"user": args[0], "site": name})
			})
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "the `host` of the site with the log-in")
	return cmd
}
