package gateway

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/portal/mail"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
)

// Startable tells what would keep a server with f from starting, beside what
// [New] tells: secrets that cannot be read, URLs that are none, files that they
// name, folders that cannot be written. It connects to nothing and makes nothing,
// so that what a database or a Redis answers is not among it. It looks as the
// user, and with the environment, that the process has.
func Startable(f *config.File) error {
	var errs []error
	bad := func(setting, value string, err error) {
		if err != nil {
			errs = append(errs, merlon.BadSetting(setting, value, err.Error()))
		}
	}
	bad("data", f.Data, writable(f.Data))
	if f.Record.Dir != "" {
		bad("record.dir", f.Record.Dir, writable(f.Record.Dir))
	}
	ref := keyRef(f.Key, f.Data)
	if _, err := os.Stat(filepath.Join(f.Data, keyFile)); f.Key != "" || err == nil {
		bad("key", string(ref), usable(ref, func(s secrets.Secret) error {
			_, err := secrets.NewKey(s)
			return err
		}))
	}
	if f.Store != "" {
		bad("store", string(f.Store), usable(f.Store, func(s secrets.Secret) error {
			return store.Check(store.Config{URL: s})
		}))
	}
	if f.Redis != "" {
		bad("redis", string(f.Redis), usable(f.Redis, redis.Check))
	}
	if c, on := f.SignIn(); on {
		post, err := mail.New(c.Mail, mailHost(f), filepath.Join(f.Data, "mail"), slog.New(slog.DiscardHandler))
		if err == nil {
			err = post.Close(context.Background()) // it has nothing to do
		}
		errs = append(errs, merlon.Within("identity.mail", err))
	}
	return errors.Join(errs...)
}

// usable reports why a secret cannot be read, or what check says of it.
func usable(ref secrets.Ref, check func(secrets.Secret) error) error {
	text, err := ref.Resolve()
	if err != nil {
		return err
	}
	return check(text)
}

// writable reports why no files can be put into a folder, or why it cannot be
// made.
func writable(folder string) error {
	for dir := folder; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
			continue
		}
		switch {
		case err != nil:
			return err
		case !info.IsDir():
			return errors.New(dir + " must be a folder")
		case syscall.Access(dir, 2|1) != nil: // W_OK and X_OK, access(2)
			return errors.New(dir + " must be a folder that this user may write to")
		}
		return nil
	}
}
