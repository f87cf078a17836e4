package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/record"
)

// wouldRefuse is the exit code of a replay in which something that passed
// would be refused.
const wouldRefuse exitCode = 3

func replayCommand() *cobra.Command {
	var s settings
	var dir, identity, since, output string
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Judge recorded traffic by another configuration, and show what would change",
		Long: `Ask the guards of a configuration about the requests that merlon serve recorded
(setting record), and compare with what became of them then. No upstream is
asked and nothing is sent. The exit code is 0, or 3 if something that passed
would be refused, or 1 if that cannot be told.

What depends on the moment is not replayed: rates and concurrent requests.
Neither are answers. Where a secret was, the recorded text only has its length;
of bodies that are not recorded, the head is judged alone.`,
		Example: `  merlon replay key record.key                                    once: make a key, and say what to write into the file
  merlon replay -c new.yaml --identity record.key
  merlon replay -c new.yaml --identity record.key --since 7d -o json
  merlon replay --off=csrf --identity record.key --dir /var/lib/merlon/traffic`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, wrong := s.load()
			if f == nil {
				return wrong
			}
			if dir == "" {
				dir = f.Record.Dir
			}
			if dir == "" {
				return errors.New("nothing says where the recorded traffic is: give --dir DIR, or set record.dir in the configuration")
			}
			if identity == "" {
				return errors.New("give --identity FILE, the secret key that merlon replay key made")
			}
			ids, err := record.ReadIdentity(identity)
			if err != nil {
				return fmt.Errorf("--identity: %w", err)
			}
			var from time.Time
			if since != "" {
				if from, err = ledger.Since(since, time.Now()); err != nil {
					return fmt.Errorf("--since: %w", err)
				}
			}
			g, built := gateway.NewReplay(f)
			if err := errors.Join(wrong, built); err != nil {
				return f.Explain(err)
			}
			p := &progress{out: cmd.ErrOrStderr()}
			r := replay(g, record.Read(dir, from, ids...), p)
			return r.tell(cmd.OutOrStdout(), cmd.ErrOrStderr(), dir, output == "json")
		},
	}
	s.add(cmd)
	f := cmd.Flags()
	f.StringVar(&identity, "identity", "", "the `file` with the secret key")
	f.StringVar(&dir, "dir", "", "the `folder` of recorded traffic (default record.dir of the configuration)")
	f.StringVar(&since, "since", "", "only from this `time` on: 1h, 7d, or 2026-11-27T10:00:00Z")
	addOutput(cmd, &output)
	cmd.AddCommand(replayKeyCommand())
	return cmd
}

func replayKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Make a key for recorded traffic",
		Long: `Write a new secret key to FILE, and print the settings with its public half. The
gateway needs only the public one: keep FILE where traffic is replayed, not where
it is recorded. It is a key of age (age-encryption.org), whose tools read the
recorded files, too.`,
		Example: "  merlon replay key record.key",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name the file to make: merlon replay key FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			recipient, err := record.MakeKey(args[0])
			if err != nil {
				return err
			}
			printf(cmd.OutOrStdout(), "record:\n  dir: /var/lib/merlon/traffic\n  recipient: %s\n", recipient)
			return nil
		},
	}
}

// replay judges entries on all cores.
func replay(g *gateway.Gateway, entries iter.Seq2[record.Entry, error], p *progress) *replayed {
	type judged struct {
		n int
		e record.Entry
		o judgement
	}
	in, out := make(chan judged, 64), make(chan judged, 64)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for j := range in {
				j.o = judge(g, &j.e)
				out <- j
			}
		})
	}
	r := newReplayed()
	var unread []error
	go func() {
		n := 0
		for e, err := range entries {
			if err != nil {
				unread = append(unread, err)
				continue
			}
			n++
			in <- judged{n: n, e: e}
		}
		close(in)
		workers.Wait()
		close(out)
	}()
	for j := range out {
		r.add(j.n, &j.e, j.o)
		p.step(r.Requests)
	}
	p.end()
	for _, err := range unread {
		r.fault(err)
	}
	return r
}

// A progress says on a terminal how far a long replay has come.
type progress struct {
	out   io.Writer
	last  time.Time
	shown bool
}

func (p *progress) step(n int) {
	if p.last.IsZero() {
		p.last = time.Now()
	}
	if time.Since(p.last) < time.Second || !isTerminal(p.out) {
		return
	}
	p.last, p.shown = time.Now(), true
	printf(p.out, "\r%d requests judged ", n)
}

func (p *progress) end() {
	if p.shown {
		printf(p.out, "\r\x1b[K")
	}
}

func encodeJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
