package demo

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// logIns are the attacks on who may come in. With the bare shop they go to its
// own log-in; where the back office has a log-in in front, to that.
func logIns() []Attack {
	return []Attack{{
		Name: "guess", Title: fmt.Sprintf("Guess Sorcha's password in %d tries", guesses),
		Hole: "Nobody counts how often a password is tried.",
		Twin: "Sorcha mistypes twice and gets in", attack: guess, twin: guessTwin,
	}, {
		Name: "stuffing", Title: fmt.Sprintf("Try %d leaked passwords from as many places", leaked),
		Hole: "An account may be tried from everywhere at once, for as long as it takes.",
		Twin: "Maeve gets in meanwhile, with her own browser", attack: stuffing, twin: stuffingTwin,
	}, {
		Name: "spray", Title: "Try one common password on all members",
		Hole: "Nobody sees that one password is tried on everybody, once each.",
		Twin: "Orla signs in meanwhile, with her own", attack: spray, twin: sprayTwin,
	}, {
		Name: "password-only", Title: "Enter with the shopkeeper's stolen password",
		Hole: "The password alone opens the back office.",
		Twin: "The shopkeeper enters, all factors given", attack: passwordOnly, twin: allFactors,
	}, {
		Name: "enumeration", Title: "Find out which user names exist",
		Hole: "The log-in says whether the name or the password was wrong.",
		Twin: "Who mistypes is told, and then gets in", attack: enumeration, twin: enumerationTwin,
	}, {
		Name: "after-log-out", Title: "Use a copied cookie after the log-out",
		Hole: "A cookie says who its owner is, and nothing ends that.",
		Twin: "The shopkeeper logs in again", attack: afterLogOut, twin: logInAgain,
	}, {
		Name: "fixation", Title: "Plant a session before the shopkeeper's log-in",
		Hole: "The session keeps the number that the browser brought.",
		Twin: "The shopkeeper gets in all the same", attack: fixation, twin: fixationTwin,
	}, {
		Name: "forged-token", Title: `Forge a token with "alg": "none"`,
		Hole: "The token itself says how it is signed, and may say: not at all.",
		Twin: "The back office's app asks with its own token", attack: forgedToken, twin: ownToken,
	}, {
		Name: "forged-header", Title: "Send Merlon-Roles: admin yourself",
		Hole: "The shop believes a header field about who is asking, whoever sends it.",
		Twin: "The shopkeeper opens the back office", attack: forgedHeader, twin: keeperEnters,
	}, {
		Name: "log-in-csrf", Title: "Another site's page logs you in as Mallory",
		Hole: "The log-in form may come from any page, so that you act in a stranger's account.",
		Twin: "Mallory logs in by herself", attack: logInCSRF, twin: malloryLogsIn,
	}, {
		Name: "open-redirect", Title: "Link to a log-in that ends at evil.example",
		Hole: "The log-in leads on to any address that the link names.",
		Twin: "A log-in leads on to the page you wanted", attack: openRedirect, twin: wayBack,
	}, {
		Name: "guess-own", Title: "Guess at the shop's own log-in",
		Hole: "The shop's own log-in, which members still have, counts nothing either.",
		Twin: "Sorcha logs in there, with her own browser", attack: guessOwn, twin: guessOwnTwin,
	}, {
		Name: "stuffing-own", Title: fmt.Sprintf("Try %d leaked pairs there, one each", pairs),
		Hole: "Nobody sees that strangers try names and passwords that leaked elsewhere.",
		Twin: "Niall gets in meanwhile, with his own browser", attack: stuffOwn, twin: stuffOwnTwin,
	}}
}

const (
	guesses = 30 // the last one is right
	leaked  = 40 // likewise
	pairs   = 50 // likewise
)

func guess(b *browser) Shot {
	thief := b.another()
	p, action := thief.doorForm("")
	for n := range guesses {
		try := fmt.Sprintf("%s%d", guessed, n+13)
		answer := thief.fill(p, action, thief.nameField(), "sorcha", "password", try)
		if answer.accepted() {
			return Shot{Worked: true, Evidence: fmt.Sprintf("try %d is right: %s", n+1, try)}
		}
		thief.slowed(answer)
	}
	b.told(thief)
	return Shot{}
}

// slowed remembers the first answer that said to wait, rather than those
// before it that said no.
func (b *browser) slowed(p page) {
	if p.status == http.StatusTooManyRequests && b.status != p.status {
		b.begin()
		b.note(p)
	}
}

func guessTwin(b *browser) Shot {
	own := b.another()
	own.signIn("sorcha", guessed)
	own.signIn("sorcha", guessed+"24")
	own.begin()
	p := own.signIn("sorcha", guessed+"42")
	b.told(own)
	return Shot{Worked: p.accepted(), Evidence: "the third try is right"}
}

// stuffing is fired while the owner has a browser that is known.
func stuffing(b *browser) Shot {
	b.guarded()
	b.owner = b.another()
	b.owner.signIn("maeve", member("maeve"))
	b.owner.leave()
	for n := range leaked {
		try := fmt.Sprintf("storm-teapot-%d", 1948+n)
		thief := b.another()
		if thief.signInOnce("maeve", try).accepted() {
			return Shot{Worked: true, Evidence: fmt.Sprintf("try %d, from yet another address, is right: %s", n+1, try)}
		}
		if thief.status == http.StatusTooManyRequests || b.status == 0 {
			b.told(thief)
		}
	}
	return Shot{}
}

// signInOnce does not wait when told to.
func (b *browser) signInOnce(name, password string) page {
	p, action := b.doorForm("")
	return b.fill(p, action, b.nameField(), name, "password", password)
}

func stuffingTwin(b *browser) Shot {
	b.owner.begin()
	p := b.owner.signInOnce("maeve", member("maeve"))
	b.told(b.owner)
	return Shot{Worked: p.accepted(), Evidence: "the owner's own browser is let in at once"}
}

// member returns a member's password.
func member(name string) string {
	for _, u := range slices.Concat(firstUsers, crew) {
		if u.Username == name {
			return u.Password
		}
	}
	return ""
}

func spray(b *browser) Shot {
	var names []struct{ Username string }
	list := b.get("/api/members")
	if err := json.Unmarshal([]byte(list.body), &names); err != nil {
		if list.status < 400 {
			b.failed(err)
		}
		return Shot{}
	}
	thief := b.another()
	p, action := thief.doorForm("")
	for _, n := range names {
		answer := thief.fill(p, action, thief.nameField(), n.Username, "password", sprayed)
		if answer.accepted() {
			return Shot{Worked: true, Evidence: fmt.Sprintf("%s uses %s", n.Username, sprayed)}
		}
		thief.slowed(answer)
	}
	b.told(thief)
	return Shot{}
}

func sprayTwin(b *browser) Shot {
	own := b.another()
	p := own.signIn("orla", member("orla"))
	b.told(own)
	return Shot{Worked: p.accepted(), Evidence: "she does not wait"}
}

// passwordOnly gives the password, and then goes to the back office directly,
// and to the pages that only who is signed in should see.
func passwordOnly(b *browser) Shot {
	b.guarded()
	k := b.shopkeeper()
	b.signIn(k.Name, k.Password)
	s := b.officeOpen()
	if !s.Worked && b.guarded() {
		s.Worked = b.get(portal+"account").status == http.StatusOK
		s.Evidence = cmp.Or(s.Evidence, "the account's page opens")
	}
	return s
}

func allFactors(b *browser) Shot {
	own := b.another()
	own.enter(own.shopkeeper())
	s := own.officeOpen()
	b.told(own)
	return s
}

// volatile is what no two log-in pages have in common.
var volatile = regexp.MustCompile(`(?:value|nonce|src|href)="[^"]*"`)

func enumeration(b *browser) Shot {
	ask := func(name string) (page, string) {
		thief := b.another()
		p := thief.signInOnce(name, marker())
		if thief.err != nil || p.status >= 500 {
			b.told(thief)
		}
		return p, volatile.ReplaceAllString(p.body, "")
	}
	known, knownText := ask("niall")
	unknown, unknownText := ask("niall-" + marker())
	b.note(known)
	if known.status != unknown.status || knownText != unknownText {
		return Shot{Worked: true, Evidence: `the answers differ: "That is not the password" and "Nobody here has that user name"`}
	}
	return Shot{How: "the same answer, whether there is such a name or not"}
}

func enumerationTwin(b *browser) Shot {
	own := b.another()
	wrong := own.signIn("niall", member("niall")+"x")
	own.begin()
	right := own.signIn("niall", member("niall"))
	b.told(own)
	return Shot{Worked: !wrong.accepted() && strings.Contains(wrong.body, `role="alert"`) && right.accepted(), Evidence: "the second try is right"}
}

func afterLogOut(b *browser) Shot {
	b.guarded()
	b.owner, b.keeper = b.another(), b.shopkeeper()
	b.owner.enter(b.keeper)
	if !b.owner.officeOpen().Worked {
		b.told(b.owner)
		return Shot{}
	}
	thief := b.another()
	b.owner.plant(thief)
	b.owner.leave()
	s := thief.officeOpen()
	b.told(thief)
	return s
}

func logInAgain(b *browser) Shot {
	b.owner.begin()
	b.owner.enter(b.keeper)
	s := b.owner.officeOpen()
	b.told(b.owner)
	return s
}

// fixation plants what the log-in page gives the attacker, and a session
// number of his own making.
func fixation(b *browser) Shot {
	b.guarded()
	thief := b.another()
	thief.doorForm("")
	thief.http.Jar.SetCookies(b.base, []*http.Cookie{
		{Name: sessionCookie, Value: marker(), Path: "/"},
		{Name: "__Host-merlon", Value: strings.Repeat("A", 43), Path: "/", Secure: true},
	})
	b.owner = b.another()
	thief.plant(b.owner)
	b.owner.enter(b.shopkeeper())
	if b.guarded() {
		thief.begin()
		s := thief.officeOpen()
		b.told(thief)
		return s
	}
	p := thief.get("/account")
	b.told(thief)
	return Shot{Worked: p.loggedInAs() == "The shopkeeper", Evidence: "the planted session is the shopkeeper's now; balance " + p.balance()}
}

func fixationTwin(b *browser) Shot {
	b.owner.begin()
	s := b.owner.officeOpen()
	b.told(b.owner)
	return s
}

const officeAPI = "/api/office/customers"

// withToken asks the back office's API as a program.
func (b *browser) withToken(token string) Shot {
	p := b.ask(http.MethodGet, officeAPI, http.Header{"Authorization": {"Bearer " + token}})
	return p.shows("the API lists every customer's address", "ann.fletcher@mail.example")
}

func forgedToken(b *browser) Shot {
	now := time.Now().Unix()
	part, err := signedPart(map[string]string{"alg": "none", "typ": "at+jwt"}, map[string]any{
		"iss": b.base.String(), "aud": b.base.String(), "sub": "admin", "role": "admin", "roles": []string{"admin"},
		"iat": now, "exp": now + 300, "jti": marker(), "client_id": "browser",
	})
	if err != nil {
		b.failed(err)
		return Shot{}
	}
	return b.withToken(part + ".")
}

func ownToken(b *browser) Shot {
	var p page
	own := b.another()
	if own.guarded() {
		own.enter(own.shopkeeper())
		p = own.ask(http.MethodPost, portal+"token", http.Header{
			"Origin": {b.base.String()}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"},
		})
	} else {
		p = own.form("/api/token", program, "username", firstUsers[0].Username, "password", firstUsers[0].Password)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(p.body), &answer); err != nil {
		b.told(own)
		return Shot{}
	}
	return b.withToken(answer.AccessToken)
}

func forgedHeader(b *browser) Shot {
	p := b.ask(http.MethodGet, backOffice, http.Header{
		"Merlon-Subject": {"keeper"}, "Merlon-Roles": {"admin"}, "Accept": {"text/html"},
	})
	return p.shows("the back office opens, with every customer's address", "ann.fletcher@mail.example")
}

func keeperEnters(b *browser) Shot { return allFactors(b) }

const mallorys = "mallory"

func logInCSRF(b *browser) Shot {
	thief := b.another()
	p, action := thief.doorForm("")
	victim := b.another()
	victim.doorForm("") // has been here before
	victim.form(action, evilPage, p.with(action, b.nameField(), mallorys, "password", member(mallorys))...)
	defer b.told(victim)
	if b.guarded() {
		in := victim.get(portal+"account").status == http.StatusOK
		return Shot{Worked: in, Evidence: "the browser is signed in as Mallory"}
	}
	return Shot{Worked: victim.get("/account").loggedInAs() == "Mallory", Evidence: "the browser is logged in as Mallory"}
}

func malloryLogsIn(b *browser) Shot {
	own := b.another()
	p := own.signIn(mallorys, member(mallorys))
	b.told(own)
	return Shot{Worked: p.accepted(), Evidence: "her own form logs her in"}
}

func openRedirect(b *browser) Shot {
	var ends []string
	for _, to := range []string{evil + "/", "//evil.example/", `/\evil.example/`, "https:evil.example"} {
		lured := b.another()
		p, action := lured.doorForm("?" + url.Values{lured.returnField(): {to}}.Encode())
		answer := lured.fill(p, action, lured.nameField(), "hugh", "password", member("hugh"))
		b.told(lured)
		if !answer.accepted() {
			return Shot{}
		}
		if end := lured.at(answer.leads()); end.Host != b.base.Host {
			return Shot{Worked: true, Evidence: "after the log-in the browser is at " + end.String()}
		}
		ends = append(ends, answer.leads())
	}
	return Shot{How: "every such log-in leads to " + strings.Join(slices.Compact(ends), ", ") + " instead"}
}

func (b *browser) returnField() string {
	if b.guarded() {
		return "return_to"
	}
	return "next"
}

func wayBack(b *browser) Shot {
	own := b.another()
	p, action := own.doorForm("?" + url.Values{own.returnField(): {reviewed}}.Encode())
	answer := own.fill(p, action, own.nameField(), "hugh", "password", member("hugh"))
	b.told(own)
	return Shot{Worked: answer.accepted() && answer.leads() == reviewed, Evidence: "the log-in leads on to the mug"}
}

// ownLogin tries the shop's own log-in, wherever there is another one.
func (b *browser) ownLogin(name, password string) (in bool) {
	p := b.form("/login", ownPage, "username", name, "password", password)
	if b.status == http.StatusUnauthorized && (p.challenged() || p.status == http.StatusTooManyRequests) {
		b.begin() // that was the shop's own "no"
		b.note(p)
	}
	return p.accepted()
}

func guessOwn(b *browser) Shot {
	b.ownerWas("sorcha")
	thief := b.another()
	for n := range guesses {
		try := fmt.Sprintf("%s%d", guessed, n+13)
		if thief.ownLogin("sorcha", try) {
			return Shot{Worked: true, Evidence: fmt.Sprintf("try %d is right: %s", n+1, try)}
		}
	}
	b.told(thief)
	return Shot{}
}

// ownerWas makes the owner one whose browser has logged in before.
func (b *browser) ownerWas(name string) {
	b.owner = b.another()
	b.owner.ownLogin(name, member(name))
	b.owner.form("/logout", ownPage)
}

// ownerIn has the owner log in, and looks who is greeted.
func (b *browser) ownerIn(name, display string) Shot {
	b.owner.begin()
	b.owner.ownLogin(name, member(name))
	p := b.owner.get("/account")
	b.told(b.owner)
	return Shot{Worked: p.loggedInAs() == display, Evidence: "the account page greets " + display}
}

func guessOwnTwin(b *browser) Shot { return b.ownerIn("sorcha", "Sorcha Ryan") }

func stuffOwn(b *browser) Shot {
	b.ownerWas("niall")
	for n := range pairs {
		name, try := fmt.Sprintf("reader-%d", 100+n), fmt.Sprintf("spring-tide-%d", 1970+n)
		if n == pairs-1 {
			name, try = "niall", member("niall")
		}
		thief := b.another()
		if thief.ownLogin(name, try) {
			return Shot{Worked: true, Evidence: fmt.Sprintf("pair %d, from yet another address, is right: %s, %s", n+1, name, try)}
		}
		b.told(thief)
	}
	return Shot{}
}

func stuffOwnTwin(b *browser) Shot { return b.ownerIn("niall", "Niall Carey") }
