package main

import (
	"bytes"
	_ "embed"
	"log/slog"
	"net"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
)

//go:embed merlon.yaml.tmpl
var initText string

var initTemplate = template.Must(template.New("merlon.yaml").Parse(initText))

// commonPorts are where backends under development usually listen.
var commonPorts = []string{"3000", "8000", "5000", "4000", "8081", "5173", "4567", "9000", "9292"}

func initCommand() *cobra.Command {
	var host, backend string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a commented merlon.yaml for what it finds",
		Long: `Look for a backend on this machine's usual ports and write a configuration for it
to standard output, with every common setting explained.`,
		Example: `  merlon init > merlon.yaml
  merlon init --host shop.example.com --upstream http://127.0.0.1:3000 > merlon.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := ""
			if backend == "" {
				found = findBackend()
				backend = "http://127.0.0.1:3000"
				if found != "" {
					backend = "http://127.0.0.1:" + found
				}
			}
			var text bytes.Buffer
			if err := initTemplate.Execute(&text, map[string]string{"Host": host, "Upstream": backend, "Found": found}); err != nil {
				return err
			}
			f, err := config.Parse("what --host and --upstream give", text.Bytes())
			if err != nil {
				return err
			}
			if _, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)}); err != nil {
				return f.Explain(err)
			}
			_, err = text.WriteTo(cmd.OutOrStdout())
			return err
		},
	}
	cmd.Flags().StringVar(&host, "host", "*", "the `name` that clients use")
	cmd.Flags().StringVar(&backend, "upstream", "", "the `URL` of the backend (default: look for one)")
	return cmd
}

// findBackend returns the first usual port that answers on loopback.
func findBackend() string {
	for _, port := range commonPorts {
		c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", port), 100*time.Millisecond)
		if err == nil {
			_ = c.Close()
			return port
		}
	}
	return ""
}
