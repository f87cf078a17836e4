package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/waf"
)

// excludeIt puts an event's remedy into the configuration file: it shows the
// change, sees that the result can be served, asks, and writes.
func (w *why) excludeIt(cmd *cobra.Command, e ledger.Event) error {
	out := cmd.OutOrStdout()
	list, err := exclusions(e)
	if err != nil {
		if e.Remedy != "" {
			printf(out, "%s\n", strings.TrimRight(e.Remedy, "\n"))
		}
		return err
	}
	old, err := os.ReadFile(w.file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no %s to change: -c FILE names the configuration", w.file)
	} else if err != nil {
		return err
	}
	edit, err := config.ExcludeIn(w.file, old, config.Scope{Site: e.Site, Route: e.Route, Shadow: e.Kind == ledger.Shadow}, list)
	if err != nil {
		printf(out, "%s\n", strings.TrimRight(e.Remedy, "\n"))
		return errors.New(err.Error() + "\nnothing was written; what is shown belongs to " + placeOf(e))
	}
	if len(edit.Added) == 0 {
		printf(out, "%s excludes this already, for %s: nothing to write.\n", w.file, placeOf(e))
		return nil
	}
	printf(out, "%s", diff.Diff(w.file, old, w.file, edit.Text))
	printf(out, "\n%s\n", opens(e))
	for _, x := range edit.Added {
		printf(out, "  %s\n", inWords(x))
	}
	if !w.yes && !atTerminal(cmd.InOrStdin()) {
		return errors.New("nothing was written: without a terminal to ask on, --yes writes it")
	}
	if err := checkText(w.file, edit.Text); err != nil {
		printf(cmd.ErrOrStderr(), "merlon: nothing was written, since the changed file has mistakes:\n")
		return err
	}
	if !w.yes {
		if err := ask(cmd.InOrStdin(), cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	if err := replaceFile(w.file, old, edit.Text); err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	printf(out, "\n%s is written. A Merlon that serves it takes it up by itself, or on SIGHUP.\n", w.file)
	return nil
}

// exclusions reads an event's remedy. Only what turns WAF rules off for a part
// of a request is put into a file without a person's hand.
func exclusions(e ledger.Event) ([]waf.Exclude, error) {
	switch {
	case e.Guard == "" || e.Kind == ledger.Access:
		return nil, fmt.Errorf("%s was not refused: there is nothing to exclude", e.ID)
	case e.Remedy == "":
		return nil, fmt.Errorf("no setting is known that would let exactly this pass; merlon why %s tells more", e.ID)
	}
	f, err := config.Parse("remedy", []byte(e.Remedy))
	if err != nil || strings.Contains(e.Remedy, "[redacted]") || strings.HasSuffix(e.Remedy, "…") {
		return nil, fmt.Errorf("the smallest change is not recorded as a whole; add it by hand to %s", placeOf(e))
	}
	list := onlyExcludes(f, e.Kind == ledger.Shadow)
	if len(list) == 0 {
		return nil, fmt.Errorf("the smallest change is not an exclusion; add what is shown by hand to %s", placeOf(e))
	}
	for _, x := range list {
		// A name is the client's choice, and in the file * stands for any
		// characters; remedies write \* for a star.
		if strings.Contains(strings.NewReplacer(`\\`, "", `\*`, "").Replace(x.Name), "*") {
			return nil, fmt.Errorf("the name %q would stand for others, too; add what is shown by hand to %s", x.Name, placeOf(e))
		}
	}
	return list, nil
}

// onlyExcludes returns the exclusions of the WAF or its shadow if there is
// nothing else.
func onlyExcludes(f *config.File, shadow bool) []waf.Exclude {
	g := f.Guards
	if g.WAF == nil || g.Monitor != nil || g.Off != nil || g.Address != nil || g.Limit != nil || g.CSRF != nil || g.Headers != nil {
		return nil
	}
	c := *g.WAF
	if shadow {
		if c.Shadow == nil || !reflect.DeepEqual(c, waf.Config{Shadow: c.Shadow}) {
			return nil
		}
		c = *c.Shadow
	}
	if !reflect.DeepEqual(c, waf.Config{Exclude: c.Exclude}) {
		return nil
	}
	return c.Exclude
}

func placeOf(e ledger.Event) string {
	switch {
	case e.Site == "":
		return "the site that is meant"
	case e.Route == "":
		return "the site " + e.Site
	}
	return "the route " + e.Route + " of the site " + e.Site
}

// opens is the first line of what an exclusion opens.
func opens(e ledger.Event) string {
	if e.Kind == ledger.Shadow {
		return "For the shadow, with every request to " + placeOf(e) + ":"
	}
	return "For every request to " + placeOf(e) + ", from any client:"
}

// inWords says what an exclusion opens.
func inWords(x waf.Exclude) string {
	what := "the rules tagged " + x.Tag
	if len(x.Rule) > 0 {
		ids := strings.Trim(fmt.Sprint([]int(x.Rule)), "[]")
		what = "rule " + ids
		if len(x.Rule) > 1 {
			what = "rules " + strings.ReplaceAll(ids, " ", ", ")
		}
	}
	switch {
	case x.Target == "":
		return what + ": off"
	case x.Name == "":
		return fmt.Sprintf("%s: off for %s, whatever their names", what, x.Target)
	}
	return fmt.Sprintf("%s: off for %s named %q", what, x.Target, x.Name)
}

// checkText builds what a file's text asks for, as merlon check does.
func checkText(name string, text []byte) error {
	f, err := config.Parse(name, text)
	if f == nil {
		return err
	}
	err = errors.Join(err, f.Defaults())
	_, built := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
	if problems := f.Explain(errors.Join(err, built)); len(problems) > 0 {
		return problems
	}
	return nil
}

func atTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// ask wants a yes.
func ask(in io.Reader, errs io.Writer) error {
	printf(errs, "\nWrite it? [y/N] ")
	answer, err := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n')
	if err == io.EOF {
		printf(errs, "\n")
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was written")
}
