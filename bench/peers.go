package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// startups is how often the start is timed.
const startups = 3

// The names by which the report finds gateways to compare.
const (
	bareName   = "bare Go ReverseProxy"
	offName    = "Merlon, WAF off"
	merlonName = "Merlon, all guards"
	caddyName  = "Caddy"
	corazaName = "Go + Coraza + CRS 4"
)

type bench struct {
	dir     string
	self    string // this program
	only    []string
	program string // Merlon; built here if empty
	backend *peer
	peers   []*peer
	missing []string // what could not be measured, and why
	startup time.Duration
	idle    int64
}

// wanted reports whether something of this name is to be measured.
func wanted(only []string, name string) bool {
	return len(only) == 0 || slices.ContainsFunc(only, func(w string) bool {
		return strings.HasPrefix(strings.ToLower(name), strings.ToLower(strings.TrimSpace(w)))
	})
}

// A candidate is a gateway that can be measured.
type candidate struct {
	name   string
	waf    bool
	other  bool // not of our making: it is left out if it cannot be started
	launch func(name, addr string) (*peer, error)
}

func (b *bench) start() (err error) {
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	addr := freeAddr()
	if b.backend, err = b.launch("backend", addr, b.self, "serve-backend", addr, ""); err != nil {
		return err
	}
	pin(b.backend.pid, loadCore())
	for _, c := range b.candidates() {
		if !wanted(b.only, c.name) {
			continue
		}
		p, err := c.launch(c.name, freeAddr())
		switch {
		case err != nil && c.other:
			reason := strings.TrimSpace(err.Error())
			b.missing = append(b.missing, c.name+": "+reason[:min(len(reason), 600)])
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", c.name, err)
		}
		p.waf = c.waf
		pin(p.pid, 0)
		b.peers = append(b.peers, p)
	}
	return nil
}

func (b *bench) stop() {
	for _, p := range b.peers {
		p.end()
	}
	if b.backend != nil {
		b.backend.end()
	}
}

// candidates are the gateways there may be.
func (b *bench) candidates() []candidate {
	server := func(mode string) func(name, addr string) (*peer, error) {
		return func(name, addr string) (*peer, error) {
			return b.launch(name, addr, b.self, mode, addr, b.backend.addr)
		}
	}
	return []candidate{
		{bareName, false, false, server("serve-bare")},
		{offName, false, false, b.merlon("--off=waf")},
		{merlonName, true, false, b.merlon()},
		{caddyName, false, true, b.caddy},
		{corazaName, true, false, server("serve-coraza")},
		{"nginx", false, true, b.nginx("")},
		{"nginx + ModSecurity + CRS 4", true, true, b.modsecurity(b.writeCRS)},
		{"nginx + ModSecurity + CRS 3", true, true, b.modsecurity(debianCRS)},
		{"HAProxy", false, true, b.haproxy},
	}
}

// unlimited lets one client load Merlon and attack it for as long as it likes,
// with every guard asked.
const unlimited = `limit: {rate: 1000000/s, burst: 4000}
ban: {allow: [127.0.0.0/8]}
`

// merlon launches Merlon.
func (b *bench) merlon(more ...string) func(name, addr string) (*peer, error) {
	return func(name, addr string) (*peer, error) {
		program, err := b.build()
		if err != nil {
			return nil, err
		}
		conf := filepath.Join(b.dir, "merlon.yaml")
		text := fmt.Sprintf(unlimited+"sites:\n  - host: \"*\"\n    upstream: http://%s\n", b.backend.addr)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return nil, err
		}
		launch := func(addr string) (*peer, error) {
			args := append([]string{"serve", "-c", conf, "--data", filepath.Join(b.dir, addr), "--https", "off", "--http", "off", "--admin", "off", "--insecure-http", addr}, more...)
			return b.launch(name, addr, program, args...)
		}
		if len(more) == 0 {
			if err := b.timeStart(launch); err != nil {
				return nil, err
			}
		}
		return launch(addr)
	}
}

// build makes Merlon as it is released, once.
func (b *bench) build() (program string, err error) {
	if b.program != "" {
		return b.program, nil
	}
	program = filepath.Join(b.dir, "merlon")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	build := exec.Command("go", "build", "-trimpath", "-o", program, "github.com/merlon-dev/merlon/cmd/merlon")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
}

// timeStart measures from the start of the process to its first answer, and
// the memory it then has.
func (b *bench) timeStart(launch func(addr string) (*peer, error)) error {
	var took []time.Duration
	for range startups {
		began := time.Now()
		p, err := launch(freeAddr())
		if err != nil {
			return err
		}
		took = append(took, time.Since(began))
		b.idle = p.rss()
		p.end()
	}
	b.startup = median(took)
	return nil
}
