package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptCommands are what scripts can do beside running merlon.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"backend":  scriptBackend,
	"address":  scriptAddress,
	"expand":   scriptExpand,
	"fetch":    scriptFetch,
	"recorded": scriptRecorded,
}

// within is how long scripts wait for what happens beside them.
const within = 2 * time.Minute

// backend NAME: start a backend that says hello; its URL is in the variable.
func scriptBackend(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") }))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

// address NAME: put an address that nobody listens on in the variable.
func scriptAddress(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], l.Addr().String())
}

// expand FILE…: replace $NAME by the variable's value.
func scriptExpand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// fetch STATUS URL [NAME]: ask until this is the answer's status; the
// request's id is in the variable.
func scriptFetch(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	last := ""
	pause := 50 * time.Millisecond
	// Ever more slowly, so that what is refused meanwhile is not a flood.
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(pause) {
		pause = min(2*pause, 3*time.Second)
		req, err := http.NewRequestWithContext(context.Background(), "GET", args[1], nil)
		ts.Check(err)
		req.Header.Set("User-Agent", "Mozilla/5.0")
		req.Header.Set("Accept", "*/*")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(res.Body)
		ts.Check(err)
		ts.Check(res.Body.Close())
		if res.StatusCode == want {
			if len(args) > 2 {
				ts.Setenv(args[2], res.Header.Get("X-Request-Id"))
			}
			return
		}
		last = fmt.Sprintf("%s\n%s", res.Status, body)
	}
	ts.Fatalf("no answer with status %d, at last: %s", want, last)
}

// recorded ID FOLDER: wait until the request's event can be found.
func scriptRecorded(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var out, errs strings.Builder
		if run(context.Background(), []string{"why", args[0], "--data", ts.MkAbs(args[1])}, &out, &errs) == 0 {
			return
		}
	}
	ts.Fatalf("no event of %s", args[0])
}
