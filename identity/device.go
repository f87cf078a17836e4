package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
)

const (
	maxDevices = 3                    // accounts that share a browser
	deviceLife = 180 * 24 * time.Hour // without a log-in
	maxAgent   = 200
)

// deviceSecrets are those in the browser's cookie, the newest first.
func deviceSecrets(v Visit) []string {
	text, ok := cookie(v.Request.Header, deviceCookie)
	if !ok || len(text) > maxDevices*(secretLen+1) {
		return nil
	}
	var list []string
	for s := range strings.SplitSeq(text, ".") {
		if len(s) == secretLen {
			list = append(list, s)
		}
	}
	return list
}

// deviceHash is what an account knows of a secret: of two accounts that share
// a browser, neither tells about the other.
func deviceHash(secret, accountID string) []byte {
	sum := sha256.Sum256([]byte(secret + "\x00" + accountID))
	return sum[:]
}

// nobody is an id that no account has: what is asked about it takes as long as
// what is asked about somebody.
const nobody = "nobody"

// device returns the hash of a device that the account knows, or nil. For an
// account that does not exist it does as much work.
func (d *Desk) device(ctx context.Context, v Visit, a account.Account) ([]byte, error) {
	id := cmp.Or(a.ID, nobody)
	for _, s := range deviceSecrets(v) {
		h := deviceHash(s, id)
		dev, err := d.env.Accounts.Device(ctx, id, h)
		switch {
		case errors.Is(err, account.ErrNotFound):
		case err != nil:
			return nil, err
		case dev.Created.Before(a.ValidFrom) || d.now().Sub(dev.Used) > deviceLife:
		default:
			return h, nil
		}
	}
	return nil, nil
}

// remember makes this browser known to the account. A secret that the account
// does not know yet is not taken over, since somebody may have planted it.
func (d *Desk) remember(ctx context.Context, v Visit, a account.Account) (known bool, err error) {
	secrets := deviceSecrets(v)
	now := d.now()
	dev := account.Device{Account: a.ID, Agent: shorten(v.UserAgent(), maxAgent), Created: now, Used: now}
	dev.Hash, err = d.device(ctx, v, a)
	if err != nil {
		return false, err
	}
	known = dev.Hash != nil
	if !known {
		s := newSecret()
		dev.Hash = deviceHash(s, a.ID)
		secrets = append([]string{s}, secrets...)
		secrets = secrets[:min(len(secrets), maxDevices)]
	}
	if err := d.env.Accounts.KnowDevice(ctx, dev); err != nil {
		return false, err
	}
	setCookie(v.Header, deviceCookie, strings.Join(secrets, "."), deviceLife)
	return known, nil
}

func shorten(s string, most int) string {
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
