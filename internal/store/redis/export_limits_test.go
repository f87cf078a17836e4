package redis

import "context"

// RenewOnce renews what is held, now.
func (l *Limits) RenewOnce(ctx context.Context) { l.renewOnce(ctx) }
