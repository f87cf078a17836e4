package demo

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
)

// An Attack is one way through a hole of the shop, and the legitimate use of
// the same place that must keep working when the hole is closed.
type Attack struct {
	Name  string `json:"name"`  // a stable word: "log-in-sql"
	Title string `json:"title"` // what is done, in a few words
	Hole  string `json:"hole"`  // what is wrong with the shop
	Twin  string `json:"twin"`  // the legitimate use
	// NotYet says in plain words which guard will close the hole, while
	// there is none. Empty: the attack must be stopped.
	NotYet string `json:"not_yet,omitempty"`

	attack, twin func(*browser) Shot
}

// A Shot is how one attempt ended, judged by what it brought about.
type Shot struct {
	Worked   bool   `json:"worked"`
	Evidence string `json:"evidence,omitempty"` // what shows that it worked
	// Status is that of the first answer that refused a request, else of
	// the last answer.
	Status int    `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`    // that the refusal gave
	Err    string `json:"error,omitempty"` // a request got no answer
	// How says why it did not work, where no refusal says so.
	How string `json:"how,omitempty"`
	// Then is the id of what was refused after that, because of it.
	Then string `json:"then,omitempty"`
	// Seen says what the shop saw of it all the same, where that is told.
	Seen string `json:"seen,omitempty"`
	// Later says that the refusal was a 503 of somebody who has too much to do,
	// and not of something broken.
	Later bool `json:"later,omitempty"`
}

// stopped reports whether an attempt that did not work was turned away, and
// did not merely meet something broken.
func (s Shot) stopped() bool {
	return !s.Worked && s.Err == "" && s.Status != 0 && (s.Status < 500 || s.Later)
}

// A Result is how an attack and its twin ended at one address.
type Result struct {
	Attack Shot `json:"attack"`
	Twin   Shot `json:"twin"`
}

// Fire sends the attack and its twin to the shop at base, with new cookies
// and, where somebody must be logged in, a new account. Of client only the
// transport and the time limit are used. People have accounts at a log-in in
// front of the shop; nil if there is none.
func (a Attack) Fire(ctx context.Context, client *http.Client, base string, people *People) Result {
	b, err := newBrowser(ctx, client, base)
	if err != nil {
		return Result{Shot{Err: err.Error()}, Shot{Err: err.Error()}}
	}
	b.people = people
	return Result{b.shoot(a.attack), b.shoot(a.twin)}
}

func (b *browser) shoot(f func(*browser) Shot) Shot {
	b.begin()
	s := f(b)
	s.Status, s.ID, s.Later = b.status, b.id, b.later
	if b.err != nil {
		s.Worked, s.Err = false, b.err.Error()
	}
	if !s.Worked {
		s.Evidence = ""
	}
	return s
}

// shows makes a Shot that worked if the page holds every one of the texts.
func (p page) shows(evidence string, texts ...string) Shot {
	for _, t := range texts {
		if !strings.Contains(p.body, t) {
			return Shot{}
		}
	}
	return Shot{Worked: p.status < 400, Evidence: evidence}
}

// Payloads that more than one place tells of.
const (
	loginPayload   = `admin' --`
	unionPayload   = `zzz' UNION SELECT username, password, email FROM users --`
	commandPayload = `require('child_process').exec('rm -rf /')`
	pingPayload    = `printer.example; cat /etc/passwd`
	metadataURL    = `http://169.254.169.254/latest/meta-data/`
	rolePath       = `iam/security-credentials/`
	internalURL    = `http://10.0.0.5/admin`
	cacheURL       = `http://localhost:6379/`
	pictureURL     = `http://images.example/pic.svg`
	traversalPath  = `../../../etc/passwd`
)

// Attacks returns every attack, in the order in which they are told.
func Attacks() []Attack {
	return slices.Concat(injections(), forgeries(), logIns(), traffic())
}

// injections are the attacks that make the shop run what the attacker wrote.
func injections() []Attack {
	return []Attack{{
		Name: "log-in-sql", Title: "Log in as " + loginPayload,
		Hole: "The user name becomes part of the SQL statement, so the rest of it, the password check, becomes a comment.",
		Twin: "Ann logs in with her password", attack: loginSQL, twin: loginRight,
	}, {
		Name: "search-union", Title: "Search with UNION for password hashes",
		Hole: "What is searched for becomes part of the SQL statement, so it can read any table.",
		Twin: "Search for O'Brien's mug", attack: searchUnion, twin: searchApostrophe,
	}, {
		Name: "stored-xss", Title: "Leave a script in a review",
		Hole: "Reviews go into everybody's page as they were typed.",
		Twin: "Review with <3, bold and code", attack: storedXSS, twin: honestReview,
	}, {
		Name: "reflected-xss", Title: "Link to a search that runs a script",
		Hole: "The search term goes into the page as it was typed.",
		Twin: "Search for tea & honey", attack: reflectedXSS, twin: searchAmpersand,
	}, {
		Name: "command", Title: "Have eval run rm -rf /",
		Hole: "body.command is evaluated as code.",
		Twin: "Run a report from the menu", attack: evalCommand, twin: menuReport,
	}, {
		Name: "ping", Title: "Ping printer.example; cat /etc/passwd",
		Hole: "The host name becomes part of a command line.",
		Twin: "Ping printer.example", attack: pingCommand, twin: pingHost,
	}, {
		Name: "metadata", Title: "Import the cloud's credentials by URL",
		Hole: "The picture import fetches any address, the metadata service's included.",
		Twin: "Import a picture from images.example", attack: metadataFetch, twin: pictureFetch,
	}, {
		Name: "internal", Title: "Reach internal services by URL",
		Hole: "The picture import stands inside the network and asks services that trust it.",
		Twin: "Show a picture from images.example", attack: internalFetch, twin: pictureShown,
	}, {
		Name: "traversal", Title: "Download ../../../etc/passwd",
		Hole: "Dots in the file name lead out of the downloads folder.",
		Twin: "Download care.txt", attack: traversal, twin: downloadFile,
	}}
}

// forgeries are the attacks that pass for something the user may do.
func forgeries() []Attack {
	return []Attack{{
		Name: "form-csrf", Title: "Another site's form sends your credit",
		Hole: "The shop does not ask which page sent the transfer form.",
		Twin: "The shop's own form sends credit", attack: formCSRF, twin: formTransfer,
	}, {
		Name: "get-transfer", Title: "Another site's link sends your credit",
		Hole: "The transfer also obeys a plain link (GET).",
		Twin: "The shop's own quick link sends credit", attack: linkCSRF, twin: linkTransfer,
		NotYet: "csrf will refuse other sites' links to routes that are marked as changing something",
	}, {
		Name: "others-order", Title: "Read somebody else's order by its number",
		Hole: "The order page asks whether you are logged in, not whose order it is.",
		Twin: "Buy something and read that order", attack: othersOrder, twin: ownOrder,
		NotYet: "access will decide by policy whose order somebody may read",
	}, {
		Name: "cookie-object", Title: "Become admin by editing a cookie",
		Hole: "The role comes back in an unsigned object in a cookie, and is believed.",
		Twin: "The untouched cookie greets its owner", attack: cookieRole, twin: cookieGreeting,
	}, {
		Name: "md5", Title: "Crack leaked MD5 password hashes",
		Hole: "Passwords are kept as MD5 without salt, and an API shows the hashes.",
		Twin: "The app still lists the members' names", attack: crackMD5, twin: memberNames,
		NotYet: "mask will keep hashes from leaving; Merlon's own log-in keeps argon2id",
	}, {
		Name: "stack-trace", Title: "Provoke an error page that tells all",
		Hole: "Errors show the statement, the database's password and the stack to everybody.",
		Twin: "Ask for the stock of a product", attack: stackTrace, twin: stockOfProduct,
		NotYet: "mask will keep stack traces and connection strings from leaving",
	}}
}

// marker is a text that no earlier run has left in a page.
func marker() string { return "m" + strings.ToLower(rand.Text()[:10]) }
