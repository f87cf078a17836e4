package identitytest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// listen collects what the browser complains about: what a policy has
// blocked, and errors of scripts. That something was refused, such as a wrong
// password with 403, is no complaint.
func (b *Browser) listen() {
	b.t.Helper()
	add := func(text string) {
		if strings.Contains(text, "Permissions-Policy header: Unrecognized feature") {
			return // features are known to some browsers and not to others
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.complaints = append(b.complaints, text)
	}
	b.must("listen", chromedp.Listen(b.ctx, func(ev any) {
		switch e := ev.(type) {
		case *log.EventEntryAdded:
			if e.Entry.Level == "error" && e.Entry.Source != "network" || e.Entry.Source == "security" {
				add(e.Entry.Text)
			}
		case *runtime.EventExceptionThrown:
			add(fmt.Sprint(e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
		}
	}))
	_, err := chromedp.Call(b.ctx, log.Enable, cdp.Empty{})
	b.must("listen", err)
	_, err = chromedp.Call(b.ctx, runtime.Enable, cdp.Empty{})
	b.must("listen", err)
}

// Complaints returns what the browser has complained about so far.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.complaints)
}
