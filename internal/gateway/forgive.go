package gateway

import (
	"context"
	"errors"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/stuffing"
)

// ErrNoLogin says that a site's backend owns no log-in.
var ErrNoLogin = errors.New("has no backend_login")

// Forgive forgets in tries the failures of a user at the log-ins that the
// backend of a site, named by its first host, owns.
func Forgive(ctx context.Context, f *config.File, tries attempts.Store, site, user string) error {
	key, err := openKey(f.Key, f.Data)
	if err != nil {
		return merlon.Within("key", err)
	}
	done := ErrNoLogin
	for _, s := range f.Sites {
		if len(s.Host) == 0 || s.Host[0] != site {
			continue
		}
		all := s.Guards.Under(f.Guards)
		guards := []config.Guards{all}
		for _, r := range s.Routes {
			guards = append(guards, r.Guards.Under(all))
		}
		for _, c := range guards {
			if c.BackendLogin == nil {
				continue
			}
			g, err := stuffing.New(*c.BackendLogin, stuffing.Env{Key: key, Store: tries})
			if err == nil {
				err = g.Forgive(ctx, site, user)
			}
			if err != nil {
				return err
			}
			done = nil
		}
	}
	return done
}
