// Command oidc-client is an application of its own, not behind Merlon, whose
// people sign in at Merlon: OpenID Connect with the code flow and PKCE.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

type wiki struct {
	http   *http.Client
	oauth  oauth2.Config
	verify *oidc.IDTokenVerifier
}

// begin sends the browser to Merlon. What the answer must fit is in cookies.
func (a *wiki) begin(w http.ResponseWriter, r *http.Request) {
	state, nonce, proof := rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	for name, value := range map[string]string{"state": state, "nonce": nonce, "proof": proof} {
		http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/callback", MaxAge: 600, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	http.Redirect(w, r, a.oauth.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(proof)), http.StatusSeeOther)
}

// callback is where the browser comes back.
func (a *wiki) callback(w http.ResponseWriter, r *http.Request) {
	cookie := func(name string) string {
		c, err := r.Cookie(name)
		if err != nil {
			return ""
		}
		return c.Value
	}
	ctx := oidc.ClientContext(r.Context(), a.http)
	if s := cookie("state"); s == "" || r.FormValue("state") != s {
		http.Error(w, "begin again", http.StatusForbidden)
		return
	}
	token, err := a.oauth.Exchange(ctx, r.FormValue("code"), oauth2.VerifierOption(cookie("proof")))
	var id *oidc.IDToken
	if err == nil {
		raw, _ := token.Extra("id_token").(string)
		id, err = a.verify.Verify(ctx, raw)
	}
	var who struct {
		Name  string   `json:"preferred_username"`
		Roles []string `json:"roles"`
	}
	if err == nil {
		err = id.Claims(&who)
	}
	if err != nil || id.Nonce != cookie("nonce") {
		log.Print("no log-in: ", err)
		http.Error(w, "begin again", http.StatusForbidden)
		return
	}
	fmt.Fprintf(w, "welcome to the wiki, %s %v\n", who.Name, who.Roles) // begin a session of your own here
}

func main() {
	pool := x509.NewCertPool()
	if pem, err := os.ReadFile(os.Getenv("CA")); err != nil || !pool.AppendCertsFromPEM(pem) {
		log.Fatal("CA must name the file of Merlon's local CA: CA=$(merlon ca --path --data data)")
	}
	addr := cmp.Or(os.Getenv("ADDR"), "127.0.0.1:3001")
	a := &wiki{http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}}
	merlon, err := oidc.NewProvider(oidc.ClientContext(context.Background(), a.http), cmp.Or(os.Getenv("ISSUER"), "https://localhost:8443"))
	if err != nil {
		log.Fatal(err)
	}
	a.oauth = oauth2.Config{ClientID: "wiki", ClientSecret: os.Getenv("WIKI_SECRET"), Endpoint: merlon.Endpoint(),
		RedirectURL: "http://" + addr + "/callback", Scopes: []string{oidc.ScopeOpenID, "profile", "roles"}}
	a.verify = merlon.Verifier(&oidc.Config{ClientID: "wiki"})
	http.HandleFunc("GET /{$}", a.begin)
	http.HandleFunc("GET /callback", a.callback)
	log.Fatal(http.ListenAndServe(addr, nil))
}
