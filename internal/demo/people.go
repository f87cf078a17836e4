package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/password"
)

// A Person has an account with the log-in in front of the shop.
type Person struct {
	Name     string
	Password string
	Key      string   // what an authenticator app needs; empty without a second factor
	Codes    []string // recovery codes

	used int // codes of the app, since it was enrolled
}

// code returns the app's next code. A code is good once, and the clock may be
// half a minute off, so that there is one at once, a second one too, and then
// a pause.
func (p *Person) code() (string, error) {
	at := time.Now().Add(time.Duration(p.used) * 30 * time.Second)
	p.used++
	return totp.GenerateCode(strings.ReplaceAll(p.Key, " ", ""), at)
}

// People have accounts with the log-in in front of the shop: the keeper, for
// whoever tries by hand, shopkeepers for the attacks, and all members, with
// the passwords that they have in the shop, as if they had been imported.
type People struct {
	Keeper Person

	mu    sync.Mutex
	spare []*Person
}

// errNoSpare: more attacks need a shopkeeper than there are.
var errNoSpare = errors.New("there is no shopkeeper left for this attack")

func (p *People) next() (*Person, error) {
	if p == nil {
		return nil, errNoSpare
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spare) == 0 {
		return nil, errNoSpare
	}
	k := p.spare[0]
	p.spare = p.spare[1:]
	return k, nil
}

// spares is how many shopkeepers the attacks use up: each log-in needs a code
// of its own.
const spares = 8

// Settle makes the accounts.
func Settle(ctx context.Context, store account.Store, hasher *password.Hasher, factors *mfa.Factors) (*People, error) {
	p := &People{Keeper: Person{Name: "keeper", Password: strings.ToLower(rand.Text()[:20])}}
	hash, err := hasher.Hash(ctx, p.Keeper.Password)
	if err != nil {
		return nil, err
	}
	if err := p.Keeper.settle(ctx, store, factors, hash); err != nil {
		return nil, err
	}
	for i := range spares {
		k := &Person{Name: fmt.Sprintf("keeper-%d", i+1), Password: p.Keeper.Password}
		if err := k.settle(ctx, store, factors, hash); err != nil {
			return nil, err
		}
		p.spare = append(p.spare, k)
	}
	for _, u := range slices.Concat(firstUsers[1:], crew) {
		hash, err := hasher.Hash(ctx, u.Password)
		if err != nil {
			return nil, err
		}
		if err := store.Create(ctx, newAccount(u.Username, u.Name, hash)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func newAccount(name, display, hash string) account.Account {
	now := time.Now()
	return account.Account{ID: rand.Text(), Name: name, Display: display, Password: hash, PasswordSince: now, Created: now}
}

// settle makes a shopkeeper's account with an authenticator app.
func (p *Person) settle(ctx context.Context, store account.Store, factors *mfa.Factors, hash string) error {
	a := newAccount(p.Name, "The shopkeeper", hash)
	a.Roles = []string{"admin"}
	if err := store.Create(ctx, a); err != nil {
		return err
	}
	e, err := factors.EnrolTOTP(ctx, a)
	if err != nil {
		return err
	}
	// The code of the last half minute, so that the present one is still good.
	code, err := totp.GenerateCode(strings.ReplaceAll(e.Secret, " ", ""), time.Now().Add(-30*time.Second))
	if err != nil {
		return err
	}
	if _, err := factors.ConfirmTOTP(ctx, a.ID, e.Ticket, code, "Demo"); err != nil {
		return err
	}
	p.Key = e.Secret
	p.Codes, err = factors.NewRecoveryCodes(ctx, a.ID)
	return err
}
