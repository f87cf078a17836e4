package main

import (
	"context"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
)

// A browser asks for Merlon's pages through a whole gateway: listeners, guards,
// pages and log, over loopback.
type browser struct {
	w      *world
	base   string
	client *http.Client
	fields map[string]url.Values // the hidden fields of each page
}

// serve starts a gateway over the world's accounts.
func (w *world) serve(ctx context.Context) (*browser, error) {
	f, err := config.Parse(filepath.Join(w.dir, "merlon.yaml"), []byte(`trusted_proxies: [127.0.0.0/8]
limit: {rate: 1000000/s, burst: 4000}
data: `+w.dir+`
identity:
  password: {argon2: {memory: 12MiB, time: 3}}
  attempts: {alarm: 1000000, account: {free: 100000}, mail: {free: 100000}}
sites:
  - {host: `+site+`, upstream: "http://127.0.0.1:1", require: login}
`))
	if err != nil {
		return nil, err
	}
	f.Listen = config.Listen{InsecureHTTP: "127.0.0.1:0"}
	s, err := gateway.NewServer(ctx, f, slog.New(slog.DiscardHandler), "timing")
	if err != nil {
		return nil, err
	}
	w.stop = append(w.stop, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx) // nothing is in flight
	})
	b := &browser{w: w, base: "http://" + s.Addr("insecure_http") + "/.merlon/", client: &http.Client{Timeout: time.Minute}, fields: map[string]url.Values{}}
	b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b, nil
}

var hidden = regexp.MustCompile(`name="csrf" value="([^"]*)"`)

// open opens a page, and returns its form's hidden fields and cookie.
func (b *browser) open(ctx context.Context, page string) (url.Values, error) {
	if got, ok := b.fields[page]; ok {
		return got, nil
	}
	res, text, err := b.do(ctx, http.MethodGet, page, "", nil)
	if err != nil {
		return nil, err
	}
	found := hidden.FindStringSubmatch(text)
	if found == nil || len(res.Cookies()) != 1 {
		return nil, fmt.Errorf("%s is no form: %s", page, res.Status)
	}
	c := res.Cookies()[0]
	b.fields[page] = url.Values{"csrf": {html.UnescapeString(found[1])}, "": {c.Name + "=" + c.Value}}
	return b.fields[page], nil
}

func (b *browser) do(ctx context.Context, method, page, cookie string, form url.Values) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.base+page, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, "", err
	}
	req.Host = site
	for name, value := range map[string]string{
		"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin", "Origin": origin, "X-Forwarded-Proto": "https",
		"Accept": "text/html", "Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie,
		"X-Forwarded-For": b.w.visit(ctx).Client.String(), "User-Agent": "Firefox",
	} {
		req.Header.Set(name, value)
	}
	res, err := b.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

// send sends a page's form with a name in it.
func (b *browser) send(page, of string, status int) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		fields, err := b.open(ctx, page)
		if err != nil {
			return err
		}
		form := url.Values{"csrf": fields["csrf"], "name": {b.w.typed(of, i)}}
		if page == "login" {
			form.Set("password", fmt.Sprintf("a wrong password, number %06d", b.w.calls))
		}
		res, _, err := b.do(ctx, http.MethodPost, page, fields.Get(""), form)
		if err == nil && res.StatusCode != status {
			err = fmt.Errorf("the answer is %s", res.Status)
		}
		return err
	}
}
