package mail

import (
	"context"
	"log/slog"
	"time"
)

// NewSmall is New with room for few letters and without pauses.
func NewSmall(c Config, folder string, log *slog.Logger, room int, now func() time.Time, wait func(time.Duration)) (*Post, error) {
	p, err := newPost(c, "shop.example", folder, log, room)
	if err == nil {
		p.now, p.wait = now, func(_ context.Context, d time.Duration) { wait(d) }
	}
	return p, err
}
