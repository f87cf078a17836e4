// Command limits-by-user is an API with an expensive route. It counts nothing
// itself, and gives up a report that nobody will wait for.
package main

import (
	"cmp"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}

var underway, most atomic.Int64

func report(w http.ResponseWriter, r *http.Request) {
	n := underway.Add(1)
	defer underway.Add(-1)
	for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
	}
	// Merlon says for how many seconds the answer is wanted.
	within, err := strconv.ParseFloat(r.Header.Get("Merlon-Timeout"), 64)
	const work = 300 * time.Millisecond
	if err == nil && within < work.Seconds() {
		http.Error(w, "too late to begin", http.StatusServiceUnavailable)
		return
	}
	select {
	case <-time.After(work):
		answer(w, map[string]any{"orders": 1204, "within": within, "at_once": most.Load()})
	case <-r.Context().Done(): // nobody waits any more
	}
}

func main() {
	http.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]string{"order": r.PathValue("id"), "what": "harbour kettle", "for": r.Header.Get("Merlon-Subject")})
	})
	http.HandleFunc("GET /reports/{year}", report)
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:3000"), nil))
}
