package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/merlon-dev/merlon/identity/password"
)

func passwordCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "password", Short: "Hash and judge passwords, and list the ones that were stolen",
		Example: `  merlon password check
  merlon password hash --user ann >> htpasswd
  merlon password build-filter --out breached.filter pwned/`,
		Args: cobra.ArbitraryArgs, RunE: group,
	}
	cmd.AddCommand(passwordCheckCommand(), passwordHashCommand(), passwordFilterCommand())
	return cmd
}

// A passwordPolicy is what flags say about the policy.
type passwordPolicy struct {
	config password.Config
	words  []string
	second bool
}

func (p *passwordPolicy) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.config.Breached, "breached", "", "a `file` that merlon password build-filter has made")
	f.StringVar(&p.config.RangeAPI, "range-api", "", "also ask this `URL`, such as https://api.pwnedpasswords.com/range/")
	f.StringSliceVar(&p.words, "word", nil, "a `name` of the user or site that it may not consist of")
	f.BoolVar(&p.second, "second-factor", false, "for an account that must prove a second factor, too")
}

// check tells what is wrong with a password, and whether anything is.
func (p *passwordPolicy) check(cmd *cobra.Command, text string) (good bool, err error) {
	policy, err := password.NewPolicy(p.config)
	if err != nil {
		return false, err
	}
	defer func() { _ = policy.Close() }()
	problems, err := policy.Check(cmd.Context(), text, p.words, p.second)
	if err != nil {
		printf(cmd.ErrOrStderr(), "merlon: %v; judged without it\n", err)
	}
	for _, problem := range problems {
		printf(cmd.ErrOrStderr(), "%s\n", problem)
	}
	return len(problems) == 0, nil
}

func passwordCheckCommand() *cobra.Command {
	var p passwordPolicy
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether a password may be set, and if not what to change",
		Long: `Read a password from the terminal, or the first line of standard input, and judge
it as Merlon does when somebody sets it. The exit code is 0 if it is good.`,
		Example: `  merlon password check
  merlon password check --second-factor --breached breached.filter --word acme,ann`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := readPassword(cmd, false)
			if err != nil {
				return err
			}
			good, err := p.check(cmd, text)
			if err != nil {
				return err
			}
			if !good {
				return errSilent
			}
			printf(cmd.OutOrStdout(), "good\n")
			return nil
		},
	}
	p.add(cmd)
	return cmd
}

func passwordHashCommand() *cobra.Command {
	var p passwordPolicy
	var user, pepper string
	var bcrypt, anyway bool
	cmd := &cobra.Command{
		Use:   "hash",
		Short: "Print the hash of a password, for an htpasswd file or an import",
		Long: `Read a password from the terminal, or the first line of standard input, and print
what to store for it. A password that Merlon would not let anybody set is refused.`,
		Example: `  merlon password hash --user ann >> htpasswd
  merlon password hash --bcrypt < password.txt       for Apache and others, too
  merlon password hash --pepper file:/etc/merlon/pepper`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if strings.ContainsAny(user, ":\r\n") {
				return errors.New("--user: must not contain a colon or a line end")
			}
			if bcrypt {
				p.config.Hash = "bcrypt"
			}
			if pepper != "" {
				if err := p.config.Pepper.UnmarshalText([]byte(pepper)); err != nil {
					return fmt.Errorf("--pepper: %w", err)
				}
			}
			h, err := password.New(p.config)
			if err != nil {
				return err
			}
			text, err := readPassword(cmd, true)
			if err != nil {
				return err
			}
			if user != "" {
				p.words = append(p.words, user)
			}
			if good, err := p.check(cmd, text); err != nil {
				return err
			} else if !good && !anyway {
				return errors.New("choose another, or give --anyway")
			}
			stored, err := h.Hash(cmd.Context(), text)
			if err != nil {
				return err
			}
			if user != "" {
				stored = user + ":" + stored
			}
			printf(cmd.OutOrStdout(), "%s\n", stored)
			return nil
		},
	}
	p.add(cmd)
	f := cmd.Flags()
	f.StringVar(&user, "user", "", "print a line of an htpasswd file for this `name`")
	f.StringVar(&pepper, "pepper", "", "the pepper, as env:NAME or file:/path")
	f.BoolVar(&bcrypt, "bcrypt", false, "use bcrypt instead of argon2id")
	f.BoolVar(&anyway, "anyway", false, "hash it although it is weak")
	return cmd
}

func passwordFilterCommand() *cobra.Command {
	b := password.Build{}
	cmd := &cobra.Command{
		Use:   "build-filter --out FILE FILE|FOLDER…",
		Short: "Make a file of stolen passwords from the public SHA-1 lists",
		Long: `Read lists of SHA-1 sums of stolen passwords and make the small file that the
setting breached names. A list is a file that is called by the first five digits
and has lines SUFFIX:COUNT, as the public range service gives them, or one with
lines SHA1:COUNT; a folder stands for all files in it, - for standard input.

The file has 2.25 bytes for a password and takes one in 65,536 others for a
stolen one. For a thousand million passwords this needs 170 MB of memory and, for
a while, 8 GB of disk beside the file. --min-count 10 leaves out what was hardly
ever seen. A running Merlon keeps the old file until it is reloaded.`,
		Example: `  merlon password build-filter --out breached.filter pwned/
  merlon password build-filter --out breached.filter --min-count 10 pwnedpasswords.txt
  xz -dc list.txt.xz | merlon password build-filter --out breached.filter -`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the lists to read: merlon password build-filter --out FILE FILE|FOLDER…")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if b.Out == "" {
				return errors.New("say where to: merlon password build-filter --out FILE FILE|FOLDER…")
			}
			if b.Least == 0 {
				return errors.New("--min-count: must be at least 1")
			}
			b.Sources, b.In = args, cmd.InOrStdin()
			p := filterProgress{out: cmd.ErrOrStderr()}
			b.Progress = p.step
			info, err := password.BuildFilter(cmd.Context(), b)
			p.end()
			if err != nil {
				return err
			}
			printf(cmd.OutOrStdout(), "%s: %d passwords, %.1f MB\n", b.Out, info.Passwords, float64(info.Bytes)/1e6)
			return nil
		},
	}
	cmd.Flags().StringVar(&b.Out, "out", "", "the `file` to make")
	cmd.Flags().Uint64Var(&b.Least, "min-count", 1, "leave out passwords that were seen less `often`")
	return cmd
}

// A filterProgress says on a terminal how far a filter has come.
type filterProgress struct {
	out   io.Writer
	last  time.Time
	shown bool
}

func (p *filterProgress) step(at password.Progress) {
	if time.Since(p.last) < time.Second/2 || !isTerminal(p.out) {
		return
	}
	p.last, p.shown = time.Now(), true
	if at.Shards > 0 {
		printf(p.out, "\r\x1b[K%d of 256 parts made", at.Shards)
		return
	}
	printf(p.out, "\r\x1b[K%d lines read, %d of %d files", at.Lines, at.Files, at.OfFiles)
}

func (p *filterProgress) end() {
	if p.shown {
		printf(p.out, "\r\x1b[K")
	}
}

// readPassword asks on the terminal, twice if the password is new, without
// showing what is typed; or reads the first line of standard input.
func readPassword(cmd *cobra.Command, again bool) (string, error) {
	lines := bufio.NewReader(cmd.InOrStdin())
	f, ok := cmd.InOrStdin().(*os.File)
	if !ok {
		return readFirst(lines)
	}
	restore, err := hideTyping(f)
	if err != nil {
		return "", err
	}
	if restore == nil {
		return readFirst(lines)
	}
	defer restore()
	text, err := askHidden(cmd, lines, "Password")
	if err != nil || !again {
		return text, err
	}
	second, err := askHidden(cmd, lines, "Once more")
	if err == nil && second != text {
		err = errors.New("these were two different passwords")
	}
	return text, err
}

// askHidden reads a line that is typed, until the command is interrupted.
func askHidden(cmd *cobra.Command, lines *bufio.Reader, what string) (string, error) {
	type answer struct {
		text string
		err  error
	}
	typed := make(chan answer, 1)
	printf(cmd.ErrOrStderr(), "%s: ", what)
	defer func() { printf(cmd.ErrOrStderr(), "\n") }()
	go func() {
		text, err := readFirst(lines)
		typed <- answer{text, err}
	}()
	select {
	case a := <-typed:
		return a.text, a.err
	case <-cmd.Context().Done():
		return "", errors.New("interrupted")
	}
}

// readFirst reads one line.
func readFirst(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		return "", errors.New("there is no password in the first line")
	}
	return line, nil
}

// hideTyping lets a terminal not show what is typed until restore is called;
// restore is nil if f is no terminal.
func hideTyping(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, nil
	}
	hidden := *old
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG
	hidden.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }, nil
}
