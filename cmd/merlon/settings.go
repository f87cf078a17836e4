package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/upstream"
)

// settings are the flags that serve and check share. What is given on the
// command line goes before what stands in the file.
type settings struct {
	file      string
	upstreams []string
	https     string
	http      string
	admin     string
	insecure  string
	data      string
	monitor   []string
	off       []string
	flags     *pflag.FlagSet
}

// defaultFile is read where no -c and no --upstream is given.
const defaultFile = "merlon.yaml"

func (s *settings) add(cmd *cobra.Command) {
	s.flags = cmd.Flags()
	f := s.flags
	f.StringVarP(&s.file, "config", "c", "", "the configuration file (default merlon.yaml in this folder)")
	f.StringSliceVar(&s.upstreams, "upstream", nil, "the `URL` of the backend to protect, for any host; several share the load")
	f.StringVar(&s.https, "https", "", "the `address` to serve on (default 127.0.0.1:8443)")
	f.StringVar(&s.http, "http", "", "the `address` that redirects to https (default 127.0.0.1:8080)")
	f.StringVar(&s.admin, "admin", "", "the `address` of health and metrics (default 127.0.0.1:9443)")
	f.StringVar(&s.insecure, "insecure-http", "", "an `address` that serves in clear text, for a TLS terminator on this host only")
	f.StringVar(&s.data, "data", "", "the `folder` for keys and events (default the user's data folder)")
	f.StringSliceVar(&s.monitor, "monitor", nil, "`guards` that only record what they would refuse; without a value all of them")
	f.StringSliceVar(&s.off, "off", nil, "`guards` that are not asked at all")
	f.Lookup("monitor").NoOptDefVal = "all"
}

// load reads the file, lays the flags over it and fills in defaults.
func (s *settings) load() (*config.File, error) {
	f, err := s.read()
	if f == nil {
		return nil, err
	}
	set := func(flag, value string, to *string) {
		if s.flags.Changed(flag) {
			*to = value
		}
	}
	set("https", s.https, &f.Listen.HTTPS)
	set("http", s.http, &f.Listen.HTTP)
	set("admin", s.admin, &f.Listen.Admin)
	set("insecure-http", s.insecure, &f.Listen.InsecureHTTP)
	set("data", s.data, &f.Data)
	if s.flags.Changed("upstream") {
		f.Sites = []config.Site{{Host: config.Names{"*"}, Upstream: &upstream.Config{To: s.upstreams}}}
	}
	s.overlay(f)
	return f, errors.Join(err, f.Defaults())
}

// overlay makes --monitor and --off hold everywhere, whatever sites say.
func (s *settings) overlay(f *config.File) {
	lay := func(g *config.Guards, whole bool) {
		if s.flags.Changed("monitor") && (whole || g.Monitor != nil) {
			g.Monitor = s.monitor
		}
		if s.flags.Changed("off") && (whole || g.Off != nil) {
			g.Off = s.off
		}
	}
	lay(&f.Guards, true)
	for i := range f.Sites {
		lay(&f.Sites[i].Guards, false)
		for j := range f.Sites[i].Routes {
			lay(&f.Sites[i].Routes[j].Guards, false)
		}
	}
}

func (s *settings) read() (*config.File, error) {
	switch {
	case s.file != "":
		return config.Load(s.file)
	case s.flags.Changed("upstream"):
		return &config.File{}, nil
	}
	f, err := config.Load(defaultFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s here: give --upstream URL to protect a backend with the defaults, "+
			"-c FILE to name a configuration, or write one with: merlon init > %s", defaultFile, defaultFile)
	}
	s.file = defaultFile
	return f, err
}

// printf writes to a terminal or pipe; if nobody reads, there is nothing to do.
func printf(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// isTerminal reports whether colour can be shown.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
