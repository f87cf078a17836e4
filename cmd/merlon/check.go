package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
)

func checkCommand() *cobra.Command {
	var s settings
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Build the configuration, say what is wrong and what is weak",
		Long: `Build everything the configuration asks for, and throw it away. Every mistake is
told at once, with its place. What is allowed but weak is listed, too. The exit
code is 1 if there are mistakes.

Secrets are read and files looked for as serve would: run it as the same user and
with the same environment. Nothing is connected to, so that a database or a Redis
that does not answer, or refuses, is found by serve alone.`,
		Example: `  merlon check
  merlon check -c /etc/merlon/merlon.yaml
  merlon check --upstream http://127.0.0.1:3000 --off=waf
  merlon check -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := s.load()
			var g *gateway.Gateway
			problems, unreadable := errors.AsType[config.Problems](err)
			switch {
			case f != nil:
				var built error
				g, built = gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
				problems = f.Explain(errors.Join(err, built, gateway.Startable(f)))
			case !unreadable:
				return err
			}
			switch {
			case output == "json":
				return checkJSON(cmd, problems, g)
			case len(problems) > 0:
				return problems
			}
			out := cmd.OutOrStdout()
			name := f.Name()
			if name == "" {
				name = "the configuration"
			}
			printf(out, "%s is correct\n", name)
			for _, w := range g.Weak() {
				printf(out, "weak: %s\n", w)
			}
			return nil
		},
	}
	s.add(cmd)
	addOutput(cmd, &output)
	return cmd
}

func addOutput(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVarP(to, "output", "o", "text", "`format`: text or json")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *to != "text" && *to != "json" {
			return fmt.Errorf("--output %q: must be text or json", *to)
		}
		return nil
	}
}

func checkJSON(cmd *cobra.Command, problems config.Problems, g *gateway.Gateway) error {
	result := struct {
		OK       bool            `json:"ok"`
		Problems config.Problems `json:"problems"`
		Weak     []string        `json:"weak"`
	}{len(problems) == 0, problems, []string{}}
	if problems == nil {
		result.Problems = config.Problems{}
	}
	if g != nil && g.Weak() != nil {
		result.Weak = g.Weak()
	}
	if err := json.NewEncoder(cmd.OutOrStdout()).Encode(result); err != nil {
		return err
	}
	if !result.OK {
		return errSilent
	}
	return nil
}
