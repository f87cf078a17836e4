package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/access"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/demo"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/stuffing"
	"github.com/merlon-dev/merlon/throttle"
	"github.com/merlon-dev/merlon/upstream"
)

func demoCommand() *cobra.Command {
	var attack bool
	var output, https, bare string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See Merlon work: a holed shop, bare and behind Merlon",
		Long: `Start a small shop with the holes that security checklists name, and Merlon in
front of it, both on loopback only. Merlon asks who enters the back office to
sign in, by an account that is made for this run and printed. Nothing is
installed, nothing leaves the machine, and everything is gone when it ends.

With --attack, fire every attack and its legitimate twin at both and print what
became of them. The exit code is 1 if an attack that should be stopped gets
through, or a legitimate use fails.`,
		Example: `  merlon demo              open the two shops in a browser and try
  merlon demo --attack     fire every attack at both`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := startDemo(cmd.Context(), bare, https, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer d.close()
			if attack {
				return d.attack(cmd.Context(), cmd.OutOrStdout(), output == "json")
			}
			d.invite(cmd.OutOrStdout())
			return d.server.Wait(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&attack, "attack", false, "fire every attack at both shops, print the table, and end")
	cmd.Flags().StringVar(&https, "https", "127.0.0.1:8443", "the loopback `address` of the shop behind Merlon; any free one if it is taken")
	cmd.Flags().StringVar(&bare, "bare", "127.0.0.1:3000", "the loopback `address` of the bare shop; any free one if it is taken")
	addOutput(cmd, &output)
	return cmd
}

// A running demo is the bare shop, and Merlon in front of it.
type running struct {
	shop   *demo.Shop
	front  *http.Server
	server *gateway.Server
	people *demo.People
	bare   string // addresses
	gated  string
	data   string
}

func startDemo(ctx context.Context, bareAddr, httpsAddr string, stderr io.Writer) (*running, error) {
	for _, addr := range []string{bareAddr, httpsAddr} {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("%q: must be a loopback address such as 127.0.0.1:3000: the shop is full of holes", addr)
		}
	}
	d := &running{}
	err := d.start(ctx, bareAddr, httpsAddr, stderr)
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *running) start(ctx context.Context, bareAddr, httpsAddr string, stderr io.Writer) (err error) {
	if d.shop, err = demo.New(ctx); err != nil {
		return err
	}
	ln, err := listenNear(bareAddr)
	if err != nil {
		return err
	}
	d.bare = "http://" + ln.Addr().String()
	d.front = &http.Server{Handler: d.shop, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = d.front.Serve(ln) }() // ends when the demo does
	if d.data, err = os.MkdirTemp("", "merlon-demo-"); err != nil {
		return err
	}
	f := d.config(freeNear(httpsAddr))
	if err := f.Defaults(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if d.server, err = gateway.NewServer(ctx, f, log, version()); err != nil {
		return f.Explain(err)
	}
	d.gated = "https://" + d.server.Addr("https")
	return d.settle(ctx, f)
}

// config puts the back office behind a log-in, and its page behind a second
// factor, and says how much of the shop anybody may have.
func (d *running) config(https string) *config.File {
	f := &config.File{Data: d.data, Listen: config.Listen{HTTPS: https, HTTP: "off", Admin: "off"},
		Class: map[string]throttle.ClassConfig{"report": {AtOnce: 4, Queue: 8, Wait: 3 * time.Second}},
		Sites: []config.Site{{Host: config.Names{"*"}, Upstream: &upstream.Config{To: []string{d.bare}}, Guards: d.traffic(), Routes: []config.Route{
			{Path: "/admin", Guards: config.Guards{Require: &access.Config{Role: access.List{"admin"}, MFA: account.Multi}}},
			{Path: "/api/office/**", Guards: config.Guards{Require: &access.Config{Role: access.List{"admin"}}}},
			{Path: "/api/report", Guards: config.Guards{Throttle: &throttle.Config{Class: "report"}}},
			{Path: "/drop", Guards: config.Guards{Challenge: &challenge.Config{When: challenge.Always, Bits: 16}}},
			{Path: "/orders/*", Guards: config.Guards{Limit: &limit.Config{Limits: []limit.Limit{
				{Name: "walk", By: limit.By{"client"}, Rate: limit.Rate{Count: 12, Per: time.Hour}, Distinct: true},
			}}}},
			{Path: "/search", Guards: config.Guards{Limit: &limit.Config{Limits: []limit.Limit{
				{Name: "search", By: limit.By{"client"}, Rate: limit.Rate{Count: 2, Per: time.Second}, Burst: 40},
			}}}},
		}}},
		Identity: &config.Identity{},
	}
	// As little as is allowed: every guess of the attacks is hashed.
	f.Identity.Password.Argon2 = password.Argon2{Memory: 12 << 20, Time: 3}
	f.Identity.Portal.Brand.Name = "Gull & Kettle"
	f.Identity.Token.Issuer = "https://" + https
	f.Identity.Token.Algorithm = "EdDSA" // its keys are made at once
	return f
}

// traffic protects the log-in that the shop has itself, and shuts out whoever
// looks for a way in, but for whoever sits at this machine: each attack shall
// be refused for what it is, and those who try it by hand go on.
func (d *running) traffic() config.Guards {
	return config.Guards{
		BackendLogin: &stuffing.Config{Path: stuffing.List{"/login"}, UserField: stuffing.List{"username"}, Slow: time.Second},
		Ban:          &ban.Config{Errors: 20, First: 30 * time.Second, Allow: []string{"127.0.0.1", "::1"}},
	}
}

// settle makes the accounts of those who may sign in.
func (d *running) settle(ctx context.Context, f *config.File) error {
	hasher, err := password.New(f.Identity.Password)
	if err != nil {
		return err
	}
	s := d.server.Stores()
	factors, err := mfa.New(mfa.Config{Issuer: "Merlon demo"}, s.Key, s.Accounts)
	if err != nil {
		return err
	}
	d.people, err = demo.Settle(ctx, s.Accounts, hasher, factors)
	return err
}

func (d *running) close() {
	if d.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.server.Shutdown(ctx) // the demo ends all the same
	}
	if d.front != nil {
		_ = d.front.Close()
	}
	if d.shop != nil {
		_ = d.shop.Close()
	}
	if d.data != "" {
		_ = os.RemoveAll(d.data)
	}
}

// listenNear listens on addr, or on any free port if that one is taken.
func listenNear(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		host, _, _ := net.SplitHostPort(addr)
		return net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	return ln, nil
}

// freeNear returns addr if it can be listened on, else its host with a port
// that can. Tokens name the address, so that it must be known beforehand.
func freeNear(addr string) string {
	ln, err := listenNear(addr)
	if err != nil {
		return addr
	}
	defer ln.Close()
	return ln.Addr().String()
}

func (d *running) invite(out io.Writer) {
	ca := d.server.Gateway().Certs().LocalCA()
	printf(out, "\n  The shop itself, full of holes   %s\n", d.bare)
	printf(out, "  The same shop behind Merlon      %s\n\n", d.gated)
	printf(out, "The certificate is from a local CA made for this run: the browser will ask, and you may go on.\n")
	printf(out, "The shop listens on this machine only. Ctrl-C ends both and forgets everything.\n\n")
	printf(out, "Things to try, on the one and on the other:\n")
	for _, t := range d.shop.Things() {
		printf(out, "\n  %s\n", t.Title)
		printf(out, "    bare    %s\n", t.At(d.bare, ""))
		printf(out, "    Merlon  %s\n", t.At(d.gated, "--cacert "+ca.Path()))
		if t.Type != "" {
			printf(out, "    type    %s\n", t.Type)
		}
		printf(out, "    look    %s\n", t.Look)
	}
	k := d.people.Keeper
	printf(out, "\n  Sign in to the back office\n")
	printf(out, "    bare    %s/login, then %s/admin: admin, lighthouse-keeper-61\n", d.bare, d.bare)
	printf(out, "    Merlon  %s/admin\n", d.gated)
	printf(out, "    type    user name  %s  and password  %s\n", k.Name, k.Password)
	printf(out, "            then, once each, one of the recovery codes  %s\n", strings.Join(k.Codes[:min(3, len(k.Codes))], "  "))
	printf(out, "            or codes of an authenticator app with the key  %s\n", k.Key)
	printf(out, "    look    a wrong password, the password alone or an edited cookie open it on the bare shop only\n")
	printf(out, "\nOr let it fire every attack by itself:  merlon demo --attack\n")
	printf(out, "Who is shut out?                        merlon ban list --data %s\n", d.data)
	printf(out, "Let them in again:                      merlon ban lift --data %s %s\n", d.data, demo.Scanner)
	printf(out, "Why was a request refused?              merlon why --data %s ID\n\n", d.data)
}

func (d *running) attack(ctx context.Context, out io.Writer, asJSON bool) error {
	client := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: d.server.Gateway().Certs().LocalCA().Pool(), MinVersion: tls.VersionTLS12}},
	}
	report := demo.Trial{Bare: d.bare, Gated: d.gated, Client: client, People: d.people, Explain: d.explain}.Run(ctx)
	var err error
	if asJSON {
		err = json.NewEncoder(out).Encode(report)
	} else {
		err = report.Write(out, isTerminal(out))
	}
	if err == nil && !report.OK() {
		err = errSilent
	}
	return err
}

// explain says what Merlon did to a request, from the event it left.
func (d *running) explain(id string) string {
	for range 20 { // events reach the disk within a tenth of a second
		e, err := ledger.Find(d.data, id)
		if err == nil {
			text := fmt.Sprintf("%s: %s", e.Guard, e.Reason)
			for _, v := range e.Verdicts {
				for _, f := range v.Findings {
					if v.Guard == e.Guard && f.Rule != "" {
						return text + " (" + f.Rule + ")"
					}
				}
			}
			return text
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ""
}
