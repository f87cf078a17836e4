// Command step-up is a bank with one form. That money leaves only if its owner
// is there at the moment, it leaves to Merlon.
package main

import (
	"cmp"
	"fmt"
	"html"
	"log"
	"net/http"
	"os"
)

const form = `<!doctype html><title>Bank</title>
<h1>Send money</h1>
<form method="post" action="/transfer">
<label>To <input name="to" required></label>
<label>Amount <input name="amount" type="number" required></label>
<button>Send</button>
</form>
`

func main() {
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, form)
	})
	http.HandleFunc("POST /transfer", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><title>Sent</title><p id=\"sent\">%s has sent %s to %s.</p>\n",
			html.EscapeString(r.Header.Get("Merlon-Subject")), html.EscapeString(r.PostFormValue("amount")), html.EscapeString(r.PostFormValue("to")))
	})
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:3000"), nil))
}
