package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ledger"
)

func eventsCommand() *cobra.Command {
	var data, since, until, kind, reason, output string
	var filter ledger.Filter
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what was refused, and everything else that was recorded",
		Example: `  merlon events                              the newest 50
  merlon events --since 1h --guard waf
  merlon events --client 203.0.113. --limit 0
  merlon events --follow -o json | jq .reason
  merlon events verify                       has anybody tampered with them?`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kinds := ledger.Kinds(); kind != "" && !slices.Contains(kinds, ledger.Kind(kind)) {
				return fmt.Errorf("--kind %q: must be one of %v", kind, kinds)
			}
			if filter.Limit < 0 {
				return fmt.Errorf("--limit %d: must not be negative; 0 is all", filter.Limit)
			}
			dir, err := needLog(data, follow)
			if err != nil {
				return err
			}
			now := time.Now()
			if since != "" {
				if filter.Since, err = ledger.Since(since, now); err != nil {
					return fmt.Errorf("--since: %w", err)
				}
			}
			if until != "" {
				if filter.Until, err = ledger.Since(until, now); err != nil {
					return fmt.Errorf("--until: %w", err)
				}
			}
			filter.Kind, filter.Reason = ledger.Kind(kind), merlon.Reason(reason)
			events := ledger.Query(dir, filter)
			if follow {
				events = ledger.Follow(cmd.Context(), dir, filter)
			}
			return printEvents(cmd.OutOrStdout(), cmd.ErrOrStderr(), events, output == "json")
		},
	}
	f := cmd.Flags()
	f.StringVar(&since, "since", "", "only from this `time` on: 1h, or 2026-11-27T10:00:00Z")
	f.StringVar(&until, "until", "", "only before this `time`")
	f.StringVar(&kind, "kind", "", "only of this `kind`: refusal, response_refusal, challenge, monitored, shadow, access, login, admin, alarm")
	f.StringVar(&filter.Guard, "guard", "", "only what this `guard` decided")
	f.StringVar(&reason, "reason", "", "only for this `reason`")
	f.StringVar(&filter.Site, "site", "", "only of this `site`")
	f.StringVar(&filter.Client, "client", "", "only from addresses that begin with this `text`")
	f.StringVar(&filter.ID, "id", "", "only the request with this `id`")
	f.IntVar(&filter.Limit, "limit", 50, "the newest so many; 0 for all")
	f.BoolVarP(&follow, "follow", "f", false, "go on with events as they happen")
	cmd.PersistentFlags().StringVar(&data, "data", "", "the data `folder` (default the user's)")
	addOutput(cmd, &output)
	cmd.AddCommand(verifyCommand(&data))
	return cmd
}

// needLog finds the data folder for commands that look at the event log, which
// may still come if it is followed.
func needLog(flag string, mayCome bool) (string, error) {
	dir, err := needData(flag)
	if err != nil || mayCome {
		return dir, err
	}
	if _, err := os.Stat(filepath.Join(dir, "events")); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no event log in %s: it is made when merlon serve starts; --data names another folder", dir)
	}
	return dir, nil
}

func printEvents(out, errs io.Writer, events iter.Seq2[ledger.Event, error], asJSON bool) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	colour := isTerminal(out)
	failed := false
	for e, err := range events {
		if err != nil && !errors.Is(err, context.Canceled) {
			printf(errs, "merlon: %v\n", err)
			failed = true
			continue
		}
		if err == nil {
			if asJSON {
				err = enc.Encode(e)
			} else {
				err = ledger.Format(out, e, colour)
			}
			if err != nil {
				return err
			}
		}
	}
	if failed {
		return errSilent
	}
	return nil
}

func verifyCommand(data *string) *cobra.Command {
	var output, keyFile string
	var known []string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Find any event that was changed, removed, added or moved",
		Example: `  merlon events verify
  merlon events verify --data /var/lib/merlon -o json
  merlon events verify --head CHAIN:SEQ:HASH    as noted elsewhere earlier`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := needLog(*data, false)
			if err != nil {
				return err
			}
			heads := make([]ledger.Head, len(known))
			for i, text := range known {
				if err := heads[i].UnmarshalText([]byte(text)); err != nil {
					return fmt.Errorf("--head: %w", err)
				}
			}
			report, err := ledger.Verify(dir, ledger.Config{KeyFile: keyFile}, heads...)
			if err != nil {
				return err
			}
			if output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
			} else {
				_, err = report.WriteTo(cmd.OutOrStdout())
			}
			if err == nil && !report.OK() {
				err = errSilent
			}
			return err
		},
	}
	cmd.Flags().StringVar(&keyFile, "key-file", "", "the `file` of the key that seals the log, if ledger.key_file names one")
	cmd.Flags().StringSliceVar(&known, "head", nil, "a `head` noted earlier, which must still be part of the log")
	addOutput(cmd, &output)
	return cmd
}
