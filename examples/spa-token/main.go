// Command spa-token is a page whose script gets an access token from Merlon,
// and the API that it calls with it. The API believes nothing but the token's
// signature, and so may stand anywhere.
package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

//go:embed page.html
var page []byte

//go:embed page.js
var script []byte

// An api verifies tokens by the issuer's public keys.
type api struct {
	issuer string
	http   *http.Client
}

// keys fetches the public keys. A busy API keeps them for as long as the
// answer's Cache-Control says.
func (a api) keys() (set jose.JSONWebKeySet, err error) {
	res, err := a.http.Get(a.issuer + "/.merlon/jwks.json")
	if err != nil {
		return set, err
	}
	defer res.Body.Close()
	return set, json.NewDecoder(res.Body).Decode(&set)
}

func (a api) hello(w http.ResponseWriter, r *http.Request) {
	text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	var claims struct {
		jwt.Claims
		Roles []string `json:"roles"`
	}
	set, err := a.keys()
	if err == nil {
		var token *jwt.JSONWebToken
		if token, err = jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.RS256}); err == nil {
			err = token.Claims(set, &claims)
		}
	}
	if err == nil { // nothing but for us, by the issuer, and now
		err = claims.ValidateWithLeeway(jwt.Expected{Issuer: a.issuer, AnyAudience: jwt.Audience{a.issuer + "/api"}, Time: time.Now()}, time.Minute)
	}
	if err != nil {
		log.Print(err)
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, "hello %s, roles %v", claims.Subject, claims.Roles)
}

func main() {
	pool := x509.NewCertPool()
	if pem, err := os.ReadFile(os.Getenv("CA")); err != nil || !pool.AppendCertsFromPEM(pem) {
		log.Fatal("CA must name the file of Merlon's local CA: CA=$(merlon ca --path --data data)")
	}
	a := api{cmp.Or(os.Getenv("ISSUER"), "https://localhost:8443"), &http.Client{Timeout: 5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}}
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })
	http.HandleFunc("GET /page.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write(script)
	})
	http.HandleFunc("GET /api/hello", a.hello)
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:3000"), nil))
}
