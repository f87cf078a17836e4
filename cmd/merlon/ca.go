package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/certs"
	"github.com/merlon-dev/merlon/internal/config"
)

func caCommand() *cobra.Command {
	var data string
	var pathOnly bool
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Say where the local CA is and how to trust it",
		Example: `  merlon ca
  curl --cacert "$(merlon ca --path)" https://localhost:8443/`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := needData(data)
			if err != nil {
				return err
			}
			ca, err := certs.LoadLocalCA(dir)
			if errors.Is(err, certs.ErrNoLocalCA) {
				return fmt.Errorf("there is no local CA in %s yet: it is made when merlon serve first needs it", dir)
			}
			if err != nil {
				return err
			}
			if pathOnly {
				printf(cmd.OutOrStdout(), "%s\n", ca.Path())
			} else {
				printf(cmd.OutOrStdout(), "%s", ca.TrustText())
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the data `folder` (default the user's)")
	cmd.Flags().BoolVar(&pathOnly, "path", false, "print only the path of the root certificate")
	return cmd
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "About the configuration file", Example: "  merlon config schema",
		Args: cobra.ArbitraryArgs, RunE: group,
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "schema",
		Short: "Print the file's JSON Schema, for editors",
		Example: `  merlon config schema > merlon.schema.json
  # then, as the first line of merlon.yaml:
  # yaml-language-server: $schema=merlon.schema.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema())
			return err
		},
	})
	return cmd
}
