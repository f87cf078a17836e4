package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/password"
)

// maxUserFile is how large a file of accounts may be.
const maxUserFile = 256 << 20

// A userImport is the flags of user import.
type userImport struct {
	format                   string
	update, verified, dryRun bool
	groups, roles            []string
}

func userImportCommand(o *office) *cobra.Command {
	var i userImport
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Add the accounts of a file: of an export, a table, or htpasswd",
		Long: `Add the accounts of a file, with the hashes of their passwords, so that nobody has
to set a new one. Hashes may be argon2, bcrypt, scrypt and PBKDF2; those too fast
for passwords (MD5, SHA-1, SHA-2, also salted and in LDAP's form) are hashed once
more, and replaced when their owner logs in. What is to be, in order: every mistake
in the file is told first, and then nothing is imported.

  JSON      as merlon user export writes it: a list, or one account after the other
  CSV       the first line names columns: name, email, display, groups, roles,
            password (a hash), plain_password, disabled, email_verified; groups and
            roles are divided by semicolons
  htpasswd  lines name:hash

- stands for standard input. Second factors are not imported.`,
		Example: `  merlon user import users.csv --dry-run
  merlon user import users.csv --group staff --verified
  merlon user import /etc/apache2/.htpasswd
  merlon user import users.json --update         of those that exist all but the password`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one file, or - for standard input: merlon user import FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readUserFile(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			if i.format == "" {
				i.format = formatOf(args[0], data)
			}
			records, err := parseUsers(i.format, data)
			if err != nil {
				return inFile(args[0], err)
			}
			if i.dryRun {
				return o.rehearse(cmd, func(ctx context.Context) error { return i.run(ctx, cmd, o, args[0], data, records) })
			}
			return o.change(cmd, func(ctx context.Context) error { return i.run(ctx, cmd, o, args[0], data, records) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&i.format, "format", "", "json, csv or htpasswd (default as the file looks)")
	f.BoolVar(&i.update, "update", false, "also change accounts that exist already; their passwords stay")
	f.BoolVar(&i.verified, "verified", false, "take the addresses as verified")
	f.BoolVar(&i.dryRun, "dry-run", false, "only say what would be done")
	f.StringSliceVar(&i.groups, "group", nil, "a `group` that all of them are in, too")
	f.StringSliceVar(&i.roles, "role", nil, "a `role` that all of them have, too")
	return cmd
}

func readUserFile(stdin io.Reader, name string) ([]byte, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxUserFile+1))
	if err == nil && len(data) > maxUserFile {
		err = fmt.Errorf("%s: is larger than %d MiB; import it in parts", name, maxUserFile>>20)
	}
	return data, err
}

// inFile puts the file's name before each error.
func inFile(name string, err error) error {
	if name == "-" {
		name = "standard input"
	}
	var errs []error
	for line := range strings.SplitSeq(err.Error(), "\n") {
		errs = append(errs, fmt.Errorf("%s: %s", name, line))
	}
	return errors.Join(errs...)
}

func (i *userImport) run(ctx context.Context, cmd *cobra.Command, o *office, name string, data []byte, records []userRecord) error {
	there, err := i.compare(ctx, o, records)
	if err != nil {
		return inFile(name, err)
	}
	hashes, err := i.hash(ctx, o, records, there)
	if err != nil {
		return inFile(name, err)
	}
	if i.dryRun {
		printf(cmd.OutOrStdout(), "%s would be added, %d changed.\n", plural(len(records)-len(there), "account"), len(there))
		return nil
	}
	added, changed := 0, 0
	for n, r := range records {
		if old, ok := there[n]; ok {
			err = i.change(ctx, o, old, r)
			changed++
		} else {
			err = i.create(ctx, o, r, hashes[n])
			added++
		}
		if err != nil {
			err = inFile(name, fmt.Errorf("%s: %w", r.place, err))
			break
		}
	}
	if err != nil {
		err = errors.Join(err, fmt.Errorf("%s before it are imported; correct the file and go on with --update", plural(added+changed-1, "account")))
	}
	sum := sha256.Sum256(data)
	return errors.Join(err, o.record(userCreated, "accounts were imported", account.Account{}, map[string]string{
		"file": name, "sha256": hex.EncodeToString(sum[:]), "added": strconv.Itoa(added), "changed": strconv.Itoa(changed),
	}), told(cmd, added, changed))
}

func told(cmd *cobra.Command, added, changed int) error {
	printf(cmd.OutOrStdout(), "%s added, %d changed.\n", plural(added, "account"), changed)
	return nil
}

// compare finds the accounts that exist, by their place in records.
func (i *userImport) compare(ctx context.Context, o *office, records []userRecord) (map[int]account.Account, error) {
	there := map[int]account.Account{}
	owners := map[string]string{} // verified addresses of the file
	var errs []error
	for n := range records {
		r := &records[n]
		r.Groups, r.Roles = tidy(append(r.Groups, i.groups...)), tidy(append(r.Roles, i.roles...))
		r.EmailVerified = (r.EmailVerified || i.verified) && r.Email != ""
		a, err := o.db.Accounts().ByName(ctx, r.Name)
		switch {
		case err == nil && i.update:
			there[n] = a
		case err == nil:
			errs = append(errs, fmt.Errorf("%s: there is an account %q already; --update changes it", r.place, r.Name))
		case !errors.Is(err, account.ErrNotFound):
			return nil, err
		}
		if !r.EmailVerified {
			continue
		}
		if other, ok := owners[r.Email]; ok {
			errs = append(errs, fmt.Errorf("%s: the address %s is in %s, too", r.place, r.Email, other))
		}
		owners[r.Email] = r.place
		owner, err := o.db.Accounts().ByEmail(ctx, r.Email)
		if err == nil && owner.Name != r.Name {
			errs = append(errs, fmt.Errorf("%s: the address %s belongs to the account %q", r.place, r.Email, owner.Name))
		} else if err != nil && !errors.Is(err, account.ErrNotFound) {
			return nil, err
		}
	}
	return there, errors.Join(errs...)
}

// hash makes what is to be stored, on every core: fast digests are wrapped.
func (i *userImport) hash(ctx context.Context, o *office, records []userRecord, there map[int]account.Account) ([]string, error) {
	c := o.passwordConfig()
	c.AtOnce = max(c.AtOnce, runtime.GOMAXPROCS(0))
	h, err := password.New(c)
	if err != nil {
		return nil, err
	}
	hashes, errs := make([]string, len(records)), make([]error, len(records))
	next := make(chan int)
	var wg sync.WaitGroup
	for range c.AtOnce {
		wg.Go(func() {
			for n := range next {
				r := records[n]
				var err error
				switch {
				case r.Password != "" && i.dryRun:
					if err = password.Valid(r.Password); err != nil {
						hashes[n], err = h.Import(ctx, r.Password)
					}
				case r.Password != "":
					hashes[n], err = h.Import(ctx, r.Password)
				case r.Plain != "" && !i.dryRun:
					hashes[n], err = h.Hash(ctx, r.Plain)
				}
				if err != nil {
					errs[n] = fmt.Errorf("%s: the password of %s: %w", r.place, r.Name, err)
				}
			}
		})
	}
	for n := range records {
		if _, ok := there[n]; !ok {
			next <- n
		}
	}
	close(next)
	wg.Wait()
	return hashes, errors.Join(errs...)
}

func (i *userImport) create(ctx context.Context, o *office, r userRecord, hash string) error {
	a := account.Account{
		ID: r.ID, Name: r.Name, Display: r.Display, Email: r.Email, EmailVerified: r.EmailVerified, Groups: r.Groups, Roles: r.Roles,
		Password: hash, PasswordSince: r.PasswordSince, MustChange: r.MustChange, Created: r.Created, Disabled: r.Disabled,
	}
	if a.ID == "" {
		a.ID = rand.Text()
	}
	if a.Created.IsZero() {
		a.Created = time.Now()
	}
	if a.Password != "" && a.PasswordSince.IsZero() {
		a.PasswordSince = time.Now()
	}
	err := o.db.Accounts().Create(ctx, a)
	if errors.Is(err, account.ErrTaken) {
		return fmt.Errorf("the name, the address or the id of %s belongs to another account", r.Name)
	}
	return err
}

// change brings an account that exists to what the file says, but for its
// password. What the file says nothing about stays.
func (i *userImport) change(ctx context.Context, o *office, old account.Account, r userRecord) error {
	a, err := o.db.Accounts().Update(ctx, old.ID, func(a *account.Account) error {
		if !r.given["groups"] {
			r.Groups = append(r.Groups, a.Groups...)
		}
		if !r.given["roles"] {
			r.Roles = append(r.Roles, a.Roles...)
		}
		a.Groups, a.Roles = r.Groups, r.Roles
		if r.given["display"] {
			a.Display = r.Display
		}
		if r.given["email"] && (r.Email != a.Email || r.EmailVerified) {
			a.Email, a.EmailVerified = r.Email, r.EmailVerified
		}
		if r.given["disabled"] {
			a.Disabled = r.Disabled
		}
		if a.Disabled && !old.Disabled {
			a.ValidFrom = time.Now()
		}
		return nil
	})
	if errors.Is(err, account.ErrTaken) {
		return fmt.Errorf("the address %s belongs to another account", r.Email)
	}
	switch {
	case err != nil:
	case a.Disabled && !old.Disabled:
		_, err = o.signOut(ctx, a.ID)
	case mayOther(old, a):
		err = o.endTokens(ctx, a.ID)
	}
	return err
}

func userExportCommand(o *office) *cobra.Command {
	var format, out string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all accounts with the hashes of their passwords, for merlon user import",
		Long: `Write all accounts, with their ids and the hashes of their passwords, to standard
output or a file that only its owner may read. Keep it as secret as the database:
hashes can be tried offline. Second factors, sessions and keys are not part of it:
it moves accounts to another database. For a backup copy identity.db while Merlon is
stopped, or use pg_dump.`,
		Example: `  merlon user export --out users.json
  merlon user export --format csv > users.csv
  merlon user export -c sqlite.yaml | merlon user import - -c postgres.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != formatJSON && format != formatCSV {
				return fmt.Errorf("--format %q: must be json or csv", format)
			}
			if f, ok := cmd.OutOrStdout().(*os.File); ok && out == "" && atTerminal(f) {
				return errors.New("these are hashes of passwords; say where to with --out FILE, or > FILE")
			}
			// It is recorded, although it changes nothing: somebody has the hashes now.
			if err := o.look(cmd, func(context.Context) error { return nil }); err != nil {
				return err
			}
			return o.change(cmd, func(ctx context.Context) error { return o.export(ctx, cmd, format, out) })
		},
	}
	cmd.Flags().StringVar(&format, "format", formatJSON, "json or csv")
	cmd.Flags().StringVar(&out, "out", "", "the `file` to write")
	return cmd
}

func (o *office) export(ctx context.Context, cmd *cobra.Command, format, out string) (err error) {
	w := cmd.OutOrStdout()
	if out != "" {
		f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("--out: %s exists already", out)
		} else if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	}
	if err := o.record("sensitive_read", "accounts were exported", account.Account{}, map[string]string{"to": out}); err != nil {
		return err
	}
	return writeUsers(w, format, func(write func(userRecord) error) error {
		return o.each(ctx, "", func(a account.Account) error { return write(recordOf(a)) })
	})
}
