package identity

import (
	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

// Required is the least that policy asks of somebody, wherever they go.
func (g *Guard) Required(id *merlon.Identity) account.Strength { return required(g.c.MFA, id.Roles) }
