package demo

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A Thing is something to try by hand.
type Thing struct {
	Title string // what it is
	Path  string // what to open, or to send Body to
	Body  string // JSON to post; empty to open Path in a browser
	Then  string // what to open after that, by the same command
	From  string // the address to come from; empty if that does not matter
	Times int    // how often to ask at once; 0: once
	Type  string // what to type on the page; empty if nothing
	Look  string // what to look for
}

// At returns what to open or to type in a shell to try the thing at base.
// curl holds extra arguments for curl, such as "--cacert ca.pem".
func (t Thing) At(base, curl string) string {
	address := strings.TrimSuffix(base, "/") + t.Path
	if curl != "" {
		curl += " "
	}
	if t.From != "" {
		curl += "--interface " + t.From + " "
	}
	switch {
	case t.Times > 0:
		return fmt.Sprintf(`seq %d | xargs -P 30 -I{} curl %s-s -o /dev/null -w '%%{http_code}\n' '%s' | sort | uniq -c`, t.Times, curl, address)
	case t.Then != "":
		return "curl " + curl + "-s " + address + " " + strings.TrimSuffix(base, "/") + t.Then
	case t.Body != "":
		return "curl " + curl + "-H 'Content-Type: application/json' -d '" + strings.ReplaceAll(t.Body, "'", `'\''`) + "' " + address
	}
	return address
}

// Scanner is the address from which to try what gets it banned, so that nobody
// is who sits at this machine.
const Scanner = "127.0.0.66"

// flooding is likewise where too much comes from.
const flooding = "127.0.0.67"

// Things returns what to try by hand, with the bare shop and behind Merlon.
func (s *Shop) Things() []Thing {
	all := []Thing{{
		Title: "Log in without a password", Path: "/login",
		Type: "user name  " + loginPayload + "  and any password",
		Look: "you are the shopkeeper",
	}, {
		Title: "Read every password hash", Path: "/search?q=" + url.QueryEscape(unionPayload),
		Look: "user names and hashes among the results",
	}, {
		Title: "Run a script by a link", Path: "/search?q=" + url.QueryEscape("<script>alert('anything could run here')</script>"),
		Look: "a message box",
	}, {
		Title: "Leave a script for everybody", Path: "/product/obriens-mug#reviews",
		Type: "log in (ann, sunshine) and review  <script>alert('hello, visitor')</script>",
		Look: "a message box for every visitor",
	}, {
		Title: "Wipe the (pretend) server", Path: "/api/tools/run", Body: `{"command": "` + commandPayload + `"}`,
		Look: `"files_left":0`,
	}, {
		Title: "Fetch the cloud's credentials", Path: "/import?url=" + url.QueryEscape(metadataURL+rolePath+"shop-server-role"),
		Look: "SecretAccessKey",
	}, {
		Title: "Download the password file", Path: "/download?file=" + traversalPath,
		Look: "root:x:0:0",
	}, {
		Title: "Guess at the shop's own log-in", Path: "/login",
		Type: "user name  sorcha,  eight wrong passwords, and then  " + guessed + "42",
		Look: "you may guess for ever; with Merlon you wait, and then your browser works for a few more tries",
	}, {
		Title: "Get a code of the Friday drop", Path: "/drop",
		Look: "a code; with Merlon your browser does a second of work for it, and curl gets none",
	}, {
		Title: "Flood the search", Path: searched, Times: flooded, From: flooding,
		Look: "all 200; with Merlon 429 after the first 40 and some, while your browser still finds the honey",
	}, {
		Title: "Ask for a slow report many times at once", Path: "/api/report", Times: hammers,
		Look: "30 at once; with Merlon 4 at once, 8 wait, and 503 says when to come back",
	}, {
		Title: "Look for secrets as scanners do", Path: "/.env", Then: "/", From: Scanner,
		Look: "the database's password and the shop; with Merlon 404, and then nothing at all for half a minute",
	}, {
		Title: "What must keep working", Path: "/search?q=" + url.QueryEscape("O'Brien's mug"),
		Look: "the mug, at both addresses",
	}}
	return slices.DeleteFunc(all, func(t Thing) bool { return t.From != "" && !manyAddresses() })
}
