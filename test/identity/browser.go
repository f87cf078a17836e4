// Package identitytest drives a real browser through Merlon's sign-in and
// account pages, as people do: it fills in what it sees and presses buttons.
//
// It is for tests only. Without a Chromium they are skipped.
package identitytest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/pquerna/otp/totp"
)

// A Browser is a Chromium with a profile of its own.
type Browser struct {
	t   testing.TB
	ctx context.Context
	// Base is put before paths: "https://localhost:8443".
	Base string

	mu         sync.Mutex
	complaints []string
}

// Start starts a Chromium that takes any certificate. It is found by
// MERLON_CHROMIUM or the usual names; without one the test is skipped.
func Start(t testing.TB, base string) *Browser {
	t.Helper()
	path := chromium()
	if path == "" {
		t.Skip("no browser: install the package chromium, or set MERLON_CHROMIUM")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("no-first-run", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("ignore-certificate-errors", true),
		chromedp.Flag("lang", "en-US"),
	)
	alloc, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(alloc)
	ctx, timeout := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(func() { timeout(); cancel(); stop() })
	b := &Browser{t: t, ctx: ctx, Base: base}
	b.must("start", chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	b.listen()
	return b
}

func chromium() string {
	for _, name := range []string{os.Getenv("MERLON_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func (b *Browser) must(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("browser: %s: %v\n%s", what, err, b.page())
	}
}

// page is what is shown, for a test that fails.
func (b *Browser) page() string {
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Second)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
	if err != nil {
		return ""
	}
	return s
}

// within bounds one step.
func (b *Browser) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.ctx, 20*time.Second)
}

// Open opens a path or an address.
func (b *Browser) Open(path string) {
	b.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = b.Base + path
	}
	ctx, cancel := b.within()
	defer cancel()
	b.must("open "+path, chromedp.Do(ctx, chromedp.Navigate(path)))
}

// Fill types into the input that a CSS selector finds, in place of what is in it.
func (b *Browser) Fill(selector, text string) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	b.must("fill in "+selector, chromedp.Do(ctx,
		chromedp.WaitVisible(selector), empty(selector), chromedp.SendKeys(selector, text)))
}

func empty(selector string) chromedp.Action[chromedp.Void] {
	clear := chromedp.Evaluate[string]("document.querySelector(" + strconv.Quote(selector) + ").value = ''")
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := clear(ctx, t)
		return chromedp.Void{}, err
	}
}

// Press presses the button that a CSS selector finds.
func (b *Browser) Press(selector string) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	b.must("press "+selector, chromedp.Do(ctx, chromedp.WaitVisible(selector), chromedp.Click(selector)))
}

// Wait waits until a script's expression is true.
func (b *Browser) Wait(expression string) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err == nil && ok {
			return
		}
		if ctx.Err() != nil {
			b.must("wait for "+expression, fmt.Errorf("%w (%v)", ctx.Err(), err))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Shows waits until a text is on the page.
func (b *Browser) Shows(text string) {
	b.t.Helper()
	b.Wait("document.body && document.body.innerText.includes(" + strconv.Quote(text) + ")")
}

// At waits until the address has a path.
func (b *Browser) At(path string) {
	b.t.Helper()
	b.Wait("document.readyState === 'complete' && location.pathname === " + strconv.Quote(path))
}

// Script evaluates an expression to a text.
func (b *Browser) Script(expression string) string {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expression+")"))
	b.must(expression, err)
	return s
}

// Text returns what an element shows, its parts that are folded away too.
func (b *Browser) Text(selector string) string {
	b.t.Helper()
	return b.Script("document.querySelector(" + strconv.Quote(selector) + ").textContent.trim()")
}

// Authenticator gives the browser a device that holds passkeys and has always
// just seen its owner.
func (b *Browser) Authenticator() {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, webauthn.Enable, webauthn.EnableParams{})
	b.must("webauthn", err)
	_, err = chromedp.Call(b.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: "ctap2", Ctap2version: "ctap2_1", Transport: "internal", HasResidentKey: true, HasUserVerification: true,
			IsUserVerified: true, AutomaticPresenceSimulation: true, DefaultBackupEligibility: true, DefaultBackupState: true,
		},
	})
	b.must("authenticator", err)
}

// NoAuthenticator takes the device away: it would answer the sign-in page, which
// offers passkeys by itself, before anybody can type.
func (b *Browser) NoAuthenticator() {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, webauthn.Disable, cdp.Empty{})
	b.must("webauthn", err)
}

// Forget removes all cookies, as a browser that was never here has none.
func (b *Browser) Forget() {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, storage.ClearCookies, storage.ClearCookiesParams{})
	b.must("forget", err)
}

// NoScript switches scripts off, or on again.
func (b *Browser) NoScript(off bool) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: off})
	b.must("scripts", err)
}

// Speak makes the browser ask for a language, such as "de".
func (b *Browser) Speak(language string) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{
		UserAgent: b.Script("navigator.userAgent"), AcceptLanguage: language,
	})
	b.must("language", err)
}

// Look sets the window's size and the colour scheme.
func (b *Browser) Look(width, height int64, dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	b.must("colours", err)
	b.must("size", chromedp.Do(b.ctx, chromedp.EmulateViewport(width, height)))
}

// Shot takes a picture of the whole page if MERLON_SHOTS names a folder, and
// fails if the page is wider than the window.
func (b *Browser) Shot(name string) {
	b.t.Helper()
	if wide := b.Script("document.documentElement.scrollWidth > document.documentElement.clientWidth"); wide == "true" {
		b.t.Errorf("%s is wider than the window", name)
	}
	folder := os.Getenv("MERLON_SHOTS")
	if folder == "" {
		return
	}
	ctx, cancel := b.within()
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	b.must("picture", err)
	b.must("picture", os.WriteFile(filepath.Join(folder, name+".png"), png, 0o600))
}

// Shots takes pictures of a page on a phone and on a desk, light and dark.
func (b *Browser) Shots(name string) {
	b.t.Helper()
	for _, size := range [][2]int64{{360, 740}, {1280, 800}} {
		for _, dark := range []bool{false, true} {
			scheme := map[bool]string{false: "light", true: "dark"}[dark]
			b.Look(size[0], size[1], dark)
			b.Shot(fmt.Sprintf("%s-%d-%s", name, size[0], scheme))
		}
	}
	b.Look(320, 640, false) // WCAG 2.2, 1.4.10: no scrolling sideways
	if wide := b.Script("document.documentElement.scrollWidth > document.documentElement.clientWidth"); wide == "true" {
		b.t.Errorf("%s is wider than 320 pixels", name)
	}
	b.Look(1280, 800, false)
}

// Code returns an authenticator app's code, step times 30 seconds from now. It
// waits for the next one if there is no time left to type it.
func Code(t testing.TB, secret string, step int) string {
	t.Helper()
	if gone := time.Now().Unix() % 30; gone > 20 {
		time.Sleep(time.Duration(30-gone) * time.Second)
	}
	c, err := totp.GenerateCode(strings.ReplaceAll(secret, " ", ""), time.Now().Add(time.Duration(step)*30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
