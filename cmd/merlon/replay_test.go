package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"github.com/merlon-dev/merlon/record"
)

// serveRequests runs `merlon serve` with the flags it is given after the name
// of a file, in front of a backend that answers everything, sends the requests
// in the file and stops. It prints the status of every answer.
func serveRequests() {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	}))
	defer backend.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	args := append([]string{"serve", "--upstream", backend.URL, "--insecure-http", "127.0.0.1:0",
		"--https", "off", "--http", "off", "--admin", "off"}, os.Args[2:]...)
	out, announce := io.Pipe()
	done := make(chan int)
	go func() { done <- run(ctx, args, announce, os.Stderr); _ = announce.Close() }()
	base := ""
	lines := bufio.NewScanner(out)
	for base == "" && lines.Scan() {
		_, base, _ = strings.Cut(lines.Text(), "cleartext ")
	}
	go func() {
		for lines.Scan() {
			if strings.Contains(lines.Text(), "recorded") {
				fmt.Fprintln(os.Stderr, lines.Text())
			}
		}
	}()
	text, err := os.ReadFile(os.Args[1])
	must(err)
	for wire := range strings.SplitSeq(string(text), "----\n") {
		fmt.Println(send(base, wire))
	}
	stop()
	os.Exit(<-done)
}

func send(base, wire string) string {
	head, body, _ := strings.Cut(strings.ReplaceAll(wire, "\n", "\r\n"), "\r\n\r\n")
	body = strings.TrimSuffix(body, "\r\n")
	head = strings.TrimSuffix(head, "\r\n") + fmt.Sprintf("\r\nHost: shop.example.com\r\nContent-Length: %d\r\n\r\n", len(body))
	hr, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + body)))
	must(err)
	to, err := url.Parse(base)
	must(err)
	hr.RequestURI, hr.URL.Scheme, hr.URL.Host = "", to.Scheme, to.Host
	res, err := http.DefaultTransport.RoundTrip(hr)
	must(err)
	must(res.Body.Close())
	return res.Status
}

// decrypt prints everything that is in the recorded files of a folder.
func decrypt() {
	ids, err := record.ReadIdentity(os.Args[1])
	must(err)
	files, err := filepath.Glob(filepath.Join(os.Args[2], "*"))
	must(err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		must(err)
		r, err := age.Decrypt(bytes.NewReader(b), ids...)
		must(err)
		_, err = io.Copy(os.Stdout, r)
		must(err)
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
