// Command backend-login is an application with a log-in of its own, which
// counts no tries.
package main

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"sync"
)

// People sign in here with passwords that no application should keep so.
var people = map[string]string{"ann@example.com": "sunshine-over-kinsale", "bob@example.com": "dragon-on-the-quay"}

type app struct {
	mu       sync.Mutex
	sessions map[string]string
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ Email, Password string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&in); err != nil {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	if password, ok := people[in.Email]; !ok || password != in.Password {
		http.Error(w, "wrong e-mail address or password", http.StatusUnauthorized)
		return
	}
	id := rand.Text()
	a.mu.Lock()
	a.sessions[id] = in.Email
	a.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: "session", Value: id, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
}

func (a *app) me(w http.ResponseWriter, r *http.Request) {
	c, err := r.Cookie("session")
	if err != nil {
		http.Error(w, "nobody", http.StatusUnauthorized)
		return
	}
	a.mu.Lock()
	who := a.sessions[c.Value]
	a.mu.Unlock()
	if who == "" {
		http.Error(w, "nobody", http.StatusUnauthorized)
		return
	}
	_, _ = w.Write([]byte("you are " + who + "\n")) // the client may be gone
}

func main() {
	a := &app{sessions: map[string]string{}}
	http.HandleFunc("POST /api/login", a.login)
	http.HandleFunc("GET /api/me", a.me)
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:3000"), nil))
}
