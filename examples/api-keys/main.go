// Command api-keys is an API that leaves keys, their scopes and their end to
// Merlon, and is told who is asking.
package main

import (
	"cmp"
	"encoding/json"
	"log"
	"net/http"
	"os"
)

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}

func main() {
	http.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]string{"order": r.PathValue("id"), "what": "harbour kettle", "for": r.Header.Get("Merlon-Subject")})
	})
	http.HandleFunc("POST /refunds/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]string{"refunded": r.PathValue("id"), "by": r.Header.Get("Merlon-Subject")})
	})
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:3000"), nil))
}
