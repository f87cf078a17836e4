package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/ledger"
)

// why is the command's flags.
type why struct {
	data, output, file string
	exclude, yes       bool
}

func whyCommand() *cobra.Command {
	var w why
	cmd := &cobra.Command{
		Use:   "why ID",
		Short: "Explain one refusal, and the smallest change that would let it pass",
		Long: `Explain what became of the request with this id: the number that a refused
client was shown, and that is in its answer's X-Request-Id.

With --exclude the smallest exclusion from the WAF's rules that lets the request
pass is put into the configuration, on the route that the request met. The rest
of the file stays as it is. What changes is shown first, and nothing is written
that merlon check would refuse.`,
		Example: `  merlon why 7K3QWZ5VJ2M4N6P7R2T4V6X2Y4
  merlon why 7K3QWZ5VJ2M4N6P7R2T4V6X2Y4 --data /var/lib/merlon -o json
  merlon why 7K3QWZ5VJ2M4N6P7R2T4V6X2Y4 --exclude           show the change, ask, write it
  merlon why 7K3QWZ5VJ2M4N6P7R2T4V6X2Y4 --exclude --yes -c /etc/merlon/merlon.yaml`,
		Args: oneID,
		RunE: func(cmd *cobra.Command, args []string) error { return w.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&w.data, "data", "", "the data `folder` (default the one that -c names, or the user's)")
	f.StringVarP(&w.file, "config", "c", "", "the configuration file (for --exclude default merlon.yaml in this folder)")
	f.BoolVar(&w.exclude, "exclude", false, "put the smallest exclusion into the configuration file")
	f.BoolVar(&w.yes, "yes", false, "with --exclude, write without asking")
	addOutput(cmd, &w.output)
	return cmd
}

func oneID(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one request by its id, as a refused client was shown it: merlon why ID")
	}
	return nil
}

func (w *why) run(cmd *cobra.Command, id string) error {
	switch {
	case w.yes && !w.exclude:
		return errors.New("--yes: is for --exclude; nothing else is written")
	case w.exclude && w.output == "json":
		return errors.New("--exclude: shows a change for people; -o json does not go with it")
	case w.exclude && w.file == "":
		w.file = defaultFile
	}
	if w.data == "" && w.file != "" {
		f, err := config.Load(w.file)
		if f == nil {
			return err
		}
		w.data = f.Data // mistakes are for the one who changes the file to tell
	}
	dir, err := needLog(w.data, false)
	if err != nil {
		return err
	}
	e, err := ledger.Find(dir, id)
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	switch {
	case w.exclude:
		return w.excludeIt(cmd, e)
	case w.output == "json":
		return json.NewEncoder(cmd.OutOrStdout()).Encode(e)
	}
	return ledger.Explain(cmd.OutOrStdout(), e, config.ReasonText)
}
