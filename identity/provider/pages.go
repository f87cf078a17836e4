package provider

import (
	"net/http"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

// Pages are what people see on the way. Each method writes the whole answer,
// with the page's own security headers and without letting it be stored or
// framed, except EndSession.
type Pages interface {
	// LogIn sends the browser to the log-in page, since nobody is signed in,
	// or not as the application needs it.
	LogIn(w http.ResponseWriter, r *http.Request, need Need)
	// Consent asks whether an application may have what it asks for. Its form
	// is sent by POST to ask.Action, with the fields "ticket", as in
	// ask.Ticket, and "answer", which is "allow" or "deny".
	Consent(w http.ResponseWriter, r *http.Request, ask Ask)
	// ConfirmLogOut asks whether somebody wants to log out, since nobody
	// vouches that they do. Its form is sent by POST to ask.Action, with the
	// fields "ticket" and "answer", which is "allow" or "deny".
	ConfirmLogOut(w http.ResponseWriter, r *http.Request, ask Ask)
	// EndSession ends the session of the request, takes its cookie away and
	// writes nothing else.
	EndSession(w http.ResponseWriter, r *http.Request) error
	// SignedOut says that it is done, or not, when there is no application to
	// go back to.
	SignedOut(w http.ResponseWriter, r *http.Request)
	// Fail shows what cannot be told to the application, because it is not
	// known who that is or where it lives.
	Fail(w http.ResponseWriter, r *http.Request, status int, reason merlon.Reason)
}

// Need is how somebody has to log in.
type Need struct {
	// ReturnTo is where the log-in page sends the browser in the end: a path
	// of this host that [account.SafeReturn] lets pass.
	ReturnTo string
	// Fresh: the person has to prove who they are now, although they may be
	// signed in.
	Fresh bool
	// Strength is the least that the application wishes.
	Strength account.Strength
	// Hint is the log-in name that the application expects, not verified.
	Hint string
	// Client is what to call the application.
	Client string
}

// Ask is a question to somebody who is signed in.
type Ask struct {
	Client string   // what to call the application; empty if it is not known
	Host   string   // where the answer goes; for people to see; may be empty
	Scopes []string // what it asks for, sorted
	Action string   // where the form is sent
	Ticket string   // sealed: what was asked, of whom
}
