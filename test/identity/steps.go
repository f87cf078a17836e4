package identitytest

import (
	"strconv"
	"strings"
)

// Register makes an account by the link in the letter that link returns.
func (b *Browser) Register(email, display, password string, link func() string) {
	b.t.Helper()
	b.Open("/.merlon/register")
	b.Fill("#email", email)
	b.Press(`form[action="/.merlon/register"] button`)
	b.Shows("Look into your mail")
	b.Open(link())
	b.Fill("#display", display)
	b.Fill("#new", password)
	b.Press(`form[action="/.merlon/register/link"] button`)
	b.Away()
}

// Recover sets a new password by the link in the letter that link returns;
// code is one of the account's app, or empty if it has none.
func (b *Browser) Recover(name, password, code string, link func() string) {
	b.t.Helper()
	b.Open("/.merlon/recover")
	b.Fill("#name", name)
	b.Press(`form[action="/.merlon/recover"] button`)
	b.Shows("Look into your mail")
	b.Open(link())
	b.Press(`form[action="/.merlon/recover/link"] button`)
	if code != "" {
		b.GiveCode(code)
	}
	b.Fill("#new", password)
	b.Press(`form[action="/.merlon/password"] button`)
	b.Away()
}

// GiveCode proves the second factor with an app's code.
func (b *Browser) GiveCode(code string) {
	b.t.Helper()
	b.Wait(`document.querySelector('form[action="/.merlon/code"]')`)
	b.unfold(`form[action="/.merlon/code"]`)
	b.Fill("#code", code)
	b.Press(`form[action="/.merlon/code"] button`)
}

// GiveRecoveryCode proves it with one of the codes that were kept.
func (b *Browser) GiveRecoveryCode(code string) {
	b.t.Helper()
	b.Wait(`document.querySelector('form[action="/.merlon/code/recovery"]')`)
	b.unfold(`form[action="/.merlon/code/recovery"]`)
	b.Fill("#recovery", code)
	b.Press(`form[action="/.merlon/code/recovery"] button`)
}

// Away waits until the browser has left Merlon's pages.
func (b *Browser) Away() {
	b.t.Helper()
	b.Wait(`document.readyState === "complete" && !location.pathname.startsWith("/.merlon/")`)
}

// SignIn fills in the sign-in page and sends it.
func (b *Browser) SignIn(name, password string) {
	b.t.Helper()
	b.Open("/.merlon/login")
	b.FillIn(name, password)
}

// FillIn is SignIn on a sign-in page that is open already.
func (b *Browser) FillIn(name, password string) {
	b.t.Helper()
	b.Fill("#name", name)
	b.Fill("#password", password)
	b.Press(`form[action="/.merlon/login"] button`)
}

// SignInByPasskey presses the passkey button of the sign-in page, if the
// browser has not offered the passkey by itself and been answered already: an
// authenticator of [Browser.Authenticator] is quick.
func (b *Browser) SignInByPasskey() {
	b.t.Helper()
	b.Open("/.merlon/login")
	b.Script(`(() => { const e = document.querySelector('form[data-passkey="get"] button'); if (e) e.click(); return 1 })()`)
	b.Away()
}

// AddApp adds an authenticator app on the account page, which asks for no
// fresh proof, and returns its secret and the recovery codes.
func (b *Browser) AddApp() (secret string, codes []string) {
	b.t.Helper()
	b.Open("/.merlon/account")
	b.unfold(`form[action="/.merlon/enrol/totp"]`)
	b.Press(`form[action="/.merlon/enrol/totp"] button`)
	return b.ConfirmApp()
}

// ConfirmApp types in the code of the app whose QR code is shown.
func (b *Browser) ConfirmApp() (secret string, codes []string) {
	b.t.Helper()
	b.Wait(`document.querySelector("img.qr")`)
	secret = b.Text("p.secret")
	b.Fill("#code", Code(b.t, secret, -1))
	b.Press(`form[action="/.merlon/enrol/totp/confirm"] button`)
	b.Wait(`document.querySelector(".codes")`)
	return secret, strings.Fields(b.Script(`[...document.querySelectorAll(".codes li")].map(e => e.textContent).join(" ")`))
}

// AddPasskey makes a passkey on the account page.
func (b *Browser) AddPasskey() {
	b.t.Helper()
	b.Open("/.merlon/account")
	b.unfold(`form[data-passkey="create"]`)
	b.Press(`form[data-passkey="create"] button`)
}

// LogOut presses one of the buttons of the log-out page.
func (b *Browser) LogOut(everywhere bool) {
	b.t.Helper()
	b.Open("/.merlon/logout")
	value := ""
	if everywhere {
		value = "yes"
	}
	b.Press(`form[action="/.merlon/logout"] button[value="` + value + `"]`)
	b.Shows("You are signed out")
}

// unfold opens what an element is folded away in.
func (b *Browser) unfold(selector string) {
	b.t.Helper()
	b.Script("(() => { const d = document.querySelector(" + strconv.Quote(selector) + ").closest('details'); if (d) d.open = true; return 1 })()")
}
