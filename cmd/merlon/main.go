// Command merlon is a security gateway for web backends.
//
// It promises that every subcommand does the obvious thing without flags, and
// that an error says what to do next. It decides nothing about requests: that
// is for the packages it composes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // for login rules, where the system has no time zones

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the globals, so that tests can call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if problems, ok := errors.AsType[config.Problems](err); ok {
		for _, p := range problems {
			fmt.Fprintf(stderr, "merlon: %s\n", p.Error())
		}
		return 1
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if !errors.Is(err, errSilent) {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(stderr, "merlon: %s\n", line)
		}
	}
	return 1
}

// errSilent ends a command with exit code 1 after it has said why itself.
var errSilent = errors.New("failed")

// An exitCode ends a command with that code after it has said why itself.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "merlon",
		Short: "A zero-trust security gateway for web backends",
		Long: `Merlon stands in front of a web backend written in any language and refuses
what a backend-security checklist warns of. It is one binary, free and local.`,
		Example: `  merlon demo                                    see it work on a holed shop
  merlon serve --upstream http://127.0.0.1:3000  protect a backend, no file needed
  merlon init > merlon.yaml                      write a configuration to start from
  merlon check                                   say what is wrong and what is weak`,
		Args:          cobra.ArbitraryArgs,
		RunE:          group,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; %s --help tells what there is", err, cmd.CommandPath())
	})
	root.SetVersionTemplate("merlon {{.Version}}\n")
	root.AddCommand(serveCommand(), checkCommand(), initCommand(), demoCommand(), whyCommand(),
		eventsCommand(), replayCommand(), caCommand(), passwordCommand(),
		userCommand(), sessionCommand(), keyCommand(), banCommand(), configCommand(), versionCommand())
	return root
}

// group runs a command that only has others below it.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return fmt.Errorf("there is no command %q; did you mean %s %s?", args[0], cmd.CommandPath(), like[0])
	}
	return fmt.Errorf("there is no command %q; %s --help lists them", args[0], cmd.CommandPath())
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is one word too many; %s --help tells what there is", args[0], cmd.CommandPath())
	}
	return nil
}

// version is the module's version, or the commit that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  merlon version",
		Args:    noArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "merlon %s\n", version())
		},
	}
}
