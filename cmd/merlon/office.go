package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/redis/rueidis"
	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/ledger"
)

// An office is what commands about accounts work with: the store and the
// event log of a configuration, which a running Merlon may have open, too.
type office struct {
	file, data string // as given on the command line

	config   *config.File
	db       *store.DB
	sessions session.Store // in the database or in Redis
	redis    live.Link     // connects when it is used first; nil if there is no Redis
	log      *ledger.Log   // nil for commands that only look
}

func (o *office) add(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVarP(&o.file, "config", "c", "", "the configuration `file` (default merlon.yaml in this folder, if there is one)")
	f.StringVar(&o.data, "data", "", "the data `folder` (default the one that the file names, or the user's)")
}

// look runs do with what is there. It makes nothing.
func (o *office) look(cmd *cobra.Command, do func(ctx context.Context) error) error {
	if err := o.load(); err != nil {
		return err
	}
	if o.config.Store == "" {
		if _, err := os.Stat(filepath.Join(o.config.Data, store.FileName)); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w in %s: merlon user add makes the first; -c or --data names another place", errNoAccounts, o.config.Data)
		}
	}
	return o.within(cmd.Context(), do)
}

// rehearse runs do with what is there, or with nothing.
func (o *office) rehearse(cmd *cobra.Command, do func(ctx context.Context) error) error {
	err := o.look(cmd, do)
	if !errors.Is(err, errNoAccounts) {
		return err
	}
	if o.config.Data, err = os.MkdirTemp("", "merlon"); err != nil {
		return err
	}
	return errors.Join(o.within(cmd.Context(), do), os.RemoveAll(o.config.Data))
}

var errNoAccounts = errors.New("there are no accounts")

// change runs do, which changes something and says what it was by record. The
// event log is opened first, so that nothing is done that cannot be recorded.
func (o *office) change(cmd *cobra.Command, do func(ctx context.Context) error) (err error) {
	if err := o.load(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.config.Data, 0o700); err != nil {
		return err
	}
	if o.log, err = ledger.Open(o.config.Data, o.config.Ledger); err != nil {
		return fmt.Errorf("nothing was changed, since it could not be recorded: %w", err)
	}
	defer func() {
		if cerr := o.log.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("what was done is not recorded: %w", cerr))
		}
	}()
	return o.within(cmd.Context(), do)
}

func (o *office) within(ctx context.Context, do func(ctx context.Context) error) (err error) {
	if o.db, err = gateway.OpenDB(ctx, o.config); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.db.Close()) }()
	o.sessions = o.db.Sessions()
	if o.config.Redis == "" {
		return do(ctx)
	}
	defer o.reach()()
	o.sessions = live.NewSessions(o.redis)
	return do(ctx)
}

// reach sets what Redis is reached by, when something in it is needed, and
// returns what ends that.
func (o *office) reach() (end func()) {
	var client rueidis.Client
	o.redis = func() (rueidis.Client, error) {
		if client != nil {
			return client, nil
		}
		url, err := o.config.Redis.Resolve()
		if err == nil {
			client, err = redis.Dial(url)
		}
		if err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
		return client, nil
	}
	return func() {
		if client != nil {
			client.Close()
		}
	}
}

// load reads the configuration, as serve would here.
func (o *office) load() error {
	file := o.file
	if file == "" {
		file = defaultFile
	}
	f, err := config.Load(file)
	switch {
	case o.file == "" && errors.Is(err, fs.ErrNotExist):
		f = &config.File{}
	case err != nil:
		return err // a file that is half understood may name another store
	}
	if o.data != "" {
		f.Data = o.data
	}
	if err := f.Defaults(); err != nil {
		return err
	}
	o.config = f
	return sameOwner(f.Data)
}

// passwordConfig is how the configuration wants passwords to be.
func (o *office) passwordConfig() password.Config {
	c, _ := o.config.SignIn()
	return c.Password
}

// sameOwner keeps root from leaving files in the folder that Merlon, which
// runs as another user, could not open.
func sameOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return nil // it will be ours
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || is.Uid == 0 {
		return nil
	}
	name := fmt.Sprint("#", is.Uid)
	if u, err := user.LookupId(fmt.Sprint(is.Uid)); err == nil {
		name = u.Username
	}
	return fmt.Errorf("%s belongs to %s, and root would leave files there that it cannot open: run this with sudo -u '%s'", dir, name, name)
}

// record puts an administrative act into the event log.
func (o *office) record(name, message string, of account.Account, more map[string]string) error {
	attrs := map[string]string{"by": operator(), "via": "command line"}
	if of.ID != "" {
		attrs["account"], attrs["id"] = of.Name, of.ID
	}
	maps.Copy(attrs, more)
	err := o.log.Append(ledger.Event{Time: time.Now(), Kind: ledger.Admin, Name: name, Message: message, Attrs: attrs})
	if err != nil {
		return fmt.Errorf("done, but not recorded: %w", err)
	}
	return nil
}

// operator is who runs the command, also behind sudo.
func operator() string {
	name := fmt.Sprint("uid ", os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if sudo := os.Getenv("SUDO_USER"); sudo != "" {
		name += " (sudo by " + sudo + ")"
	}
	return name
}

// find returns the account with a log-in name or verified address.
func (o *office) find(ctx context.Context, name string) (account.Account, error) {
	folded, err := account.Fold(name)
	if err != nil {
		return account.Account{}, fmt.Errorf("%q: %w", name, err)
	}
	a, err := o.db.Accounts().ByName(ctx, folded)
	if errors.Is(err, account.ErrNotFound) && strings.Contains(folded, "@") {
		a, err = o.db.Accounts().ByEmail(ctx, folded)
	}
	if errors.Is(err, account.ErrNotFound) {
		return a, fmt.Errorf("there is no account %q; merlon user list shows them", name)
	}
	return a, err
}

// each calls do with every account that the filter lets through, by name.
func (o *office) each(ctx context.Context, filter string, do func(account.Account) error) error {
	const page = 500
	for after := ""; ; {
		list, err := o.db.Accounts().Accounts(ctx, filter, after, page)
		if err != nil {
			return err
		}
		for _, a := range list {
			if err := do(a); err != nil {
				return err
			}
		}
		if len(list) < page {
			return nil
		}
		after = list[len(list)-1].Name
	}
}

// tokenLife is at least as long as any token of ours holds.
const tokenLife = 2 * time.Hour

// signOut ends an account's sessions and tokens, and what applications were
// allowed, and returns how many sessions those were.
func (o *office) signOut(ctx context.Context, id string) (int, error) {
	ended, err := o.sessions.End(ctx, session.Where{Account: id})
	_, gerr := provider.EndGrants(ctx, o.db.Grants(), id, "", time.Now().Truncate(time.Second))
	return len(ended), errors.Join(err, gerr, o.endTokens(ctx, id), o.db.Tokens().RevokeFamilies(ctx, id, ""))
}

// endTokens ends the access tokens that an account was given until now.
func (o *office) endTokens(ctx context.Context, id string) error {
	now := time.Now().Truncate(time.Second)
	return o.db.Tokens().Revoke(ctx, token.Revocation{Kind: token.OfSubject, ID: id, Before: now, Expires: now.Add(tokenLife)}, now)
}

// mayOther reports whether two states of an account may different things. Its
// tokens, which hold groups and roles, then end: sessions and refresh secrets
// look them up.
func mayOther(a, b account.Account) bool {
	return !slices.Equal(tidy(a.Groups), tidy(b.Groups)) || !slices.Equal(tidy(a.Roles), tidy(b.Roles))
}

// origin is where people reach the first site that has a name or says so.
func (o *office) origin() string {
	host := "localhost"
	for _, s := range o.config.Sites {
		if s.Origin != "" {
			return strings.TrimSuffix(s.Origin, "/")
		}
		if i := slices.IndexFunc(s.Host, func(h string) bool { return !strings.Contains(h, "*") }); i >= 0 {
			host = s.Host[i]
			break
		}
	}
	if _, port, err := net.SplitHostPort(o.config.Listen.HTTPS); err == nil && port != "443" {
		host = net.JoinHostPort(host, port)
	}
	return "https://" + host
}

// oneName is for commands about one account.
func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one account: %s NAME", cmd.CommandPath())
	}
	return nil
}

// day writes a time for tables.
func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

// dash writes what there may be none of for tables. What a terminal would obey
// is shown as a mark.
func dash(list ...string) string {
	s := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.Join(list, ","))
	if s == "" {
		return "-"
	}
	return s
}
