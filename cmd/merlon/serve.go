package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
)

func serveCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Protect a backend",
		Long: `Stand in front of a backend until told to stop. SIGHUP or a change of the file
reloads it; a file with mistakes leaves the old configuration running. SIGTERM
stops without losing a request: start the new Merlon first and it takes over the
port.`,
		Example: `  merlon serve --upstream http://127.0.0.1:3000
  merlon serve -c /etc/merlon/merlon.yaml
  merlon serve --upstream http://127.0.0.1:3000 --monitor        first days: record, refuse nothing
  merlon serve --upstream http://127.0.0.1:3000 --off=csrf,limit
  merlon serve --upstream unix:/run/app.sock --insecure-http 127.0.0.1:8000`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			relax()
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return s.serve(cmd.Context(), cmd.OutOrStdout(), log)
		},
	}
	s.add(cmd)
	return cmd
}

func (s *settings) serve(ctx context.Context, out io.Writer, log *slog.Logger) error {
	began := time.Now()
	f, err := s.load()
	if err != nil {
		if f == nil {
			return err
		}
		return f.Explain(err)
	}
	srv, err := gateway.NewServer(ctx, f, log, version())
	if err != nil {
		return f.Explain(err)
	}
	announce(out, srv, f, time.Since(began))
	invite(ctx, out, srv, log)
	go s.watch(ctx, srv, log)
	err = srv.Wait(ctx)
	if err == nil {
		log.Info("stopping; what is in flight is answered first")
	}
	if serr := srv.Shutdown(context.WithoutCancel(ctx)); err == nil {
		err = serr
	}
	return err
}

// announce says in a few lines what is served where, and what is weak.
func announce(out io.Writer, srv *gateway.Server, f *config.File, took time.Duration) {
	printf(out, "merlon %s, ready after %d ms\n\n", version(), took.Milliseconds())
	for _, site := range srv.Gateway().Sites() {
		host := site.Host
		if host == "*" {
			host = "any host"
		}
		to := strings.Join(site.Upstream, ", ")
		if to == "" {
			to = "its routes' upstreams"
		}
		printf(out, "  site     %s  ->  %s\n", host, to)
		guards := strings.Join(site.Guards, ", ")
		if site.Headers {
			guards += ", headers"
		}
		printf(out, "  guards   %s\n", guards)
	}
	if a := srv.Addr("https"); a != "" {
		printf(out, "  https    https://%s\n", a)
	}
	if a := srv.Addr("insecure_http"); a != "" {
		printf(out, "  cleartext http://%s\n", a)
	}
	if a := srv.Addr("http"); a != "" {
		printf(out, "  http     http://%s, redirects only\n", a)
	}
	if a := srv.Addr("admin"); a != "" {
		printf(out, "  admin    %s: /healthz /readyz /metrics\n", a)
	}
	printf(out, "  data     %s\n", f.Data)
	if f.Record.Dir != "" {
		printf(out, "  traffic  is recorded in %s\n", f.Record.Dir)
	}
	if ca := srv.Gateway().Certs().LocalCA(); ca != nil {
		printf(out, "  local CA %s (merlon ca says how to trust it)\n", ca.Path())
	}
	for _, w := range srv.Gateway().Weak() {
		printf(out, "  weak     %s\n", w)
	}
	printf(out, "\n")
}

// invite prints the link of the first administrator, as long as there is none.
func invite(ctx context.Context, out io.Writer, srv *gateway.Server, log *slog.Logger) {
	address, until, err := srv.Gateway().FirstLink(ctx)
	switch {
	case err != nil:
		log.Error("the first administrator's link could not be made", "error", err)
	case address != "":
		printf(out, "Nobody has an account yet. Become the first administrator, once, until %s:\n  %s\n\n", until.Format("15:04"), address)
	}
}

// quiet is how long a file must stay unchanged before it is read: editors
// write in several steps.
const quiet = 200 * time.Millisecond

// watch reloads on SIGHUP and when the file changes.
func (s *settings) watch(ctx context.Context, srv *gateway.Server, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var changes chan fsnotify.Event
	last := ""
	if s.file != "" {
		last = contents(s.file)
		w, err := fsnotify.NewWatcher()
		if err == nil {
			defer w.Close()
			// The folder, since editors and Kubernetes replace the file.
			err = w.Add(filepath.Dir(s.file))
			changes = w.Events
		}
		if err != nil {
			log.Warn("changes of the file are not noticed; send SIGHUP", "file", s.file, "error", err)
		}
	}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			timer.Reset(quiet)
		case <-timer.C:
			if now := contents(s.file); now != last {
				last = now
				s.reload(srv, log)
			}
		case <-hup:
			if s.file != "" {
				last = contents(s.file)
			}
			s.reload(srv, log)
		}
	}
}

func contents(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *settings) reload(srv *gateway.Server, log *slog.Logger) {
	f, err := s.load()
	if err == nil {
		err = srv.Reload(f)
	}
	if err == nil {
		log.Info("configuration reloaded", "file", s.file)
		return
	}
	problems, ok := errors.AsType[config.Problems](err)
	switch {
	case f != nil:
		problems = f.Explain(err)
	case !ok:
		problems = config.Problems{{Rule: err.Error()}}
	}
	for _, p := range problems {
		log.Error("configuration not reloaded; the old one goes on", "problem", p.Error())
	}
}

// needData finds the data folder for commands that look at it.
func needData(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	dir, err := config.DefaultData()
	if err != nil {
		return "", fmt.Errorf("--data: %w", err)
	}
	return dir, nil
}
