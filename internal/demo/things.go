package demo

import (
	"net/url"
	"strings"
)

// A Thing is something to try by hand.
type Thing struct {
	Title string // what it is
	Path  string // what to open, or to send Body to
	Body  string // JSON to post; empty to open Path in a browser
	Type  string // what to type on the page; empty if nothing
	Look  string // what to look for
}

// At returns what to open or to type in a shell to try the thing at base.
// curl holds extra arguments for curl, such as "--cacert ca.pem".
func (t Thing) At(base, curl string) string {
	address := strings.TrimSuffix(base, "/") + t.Path
	if t.Body == "" {
		return address
	}
	if curl != "" {
		curl += " "
	}
	return "curl " + curl + "-H 'Content-Type: application/json' -d '" + strings.ReplaceAll(t.Body, "'", `'\''`) + "' " + address
}

// Things returns what to try by hand, with the bare shop and behind Merlon.
func (s *Shop) Things() []Thing {
	return []Thing{{
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
		Title: "What must keep working", Path: "/search?q=" + url.QueryEscape("O'Brien's mug"),
		Look: "the mug, at both addresses",
	}}
}
