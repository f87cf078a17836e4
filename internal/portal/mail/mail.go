// Package mail brings letters to people without anybody waiting for it: a
// letter is taken into a bounded queue at once and goes out later, so that
// neither an answer's time nor its words tell whether there was one to send.
//
// A letter that cannot be sent for an hour is given up, and so are those that
// a full queue has no room for and those still waiting when the process ends:
// the log says so, and people ask again.
package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

// Config configures a [Post]. The zero Config writes letters into files, for
// whoever runs the gateway to read and to pass on.
type Config struct {
	// From is the sender's address, with a name if you like. Default:
	// merlon@ and the first site's host. Example:
	//
	//	from: "The Shop <no-reply@shop.example>"
	From string `yaml:"from,omitempty"`
	// Folder is where letters are written, one .eml file each, if smtp has no
	// host. Only the user that Merlon runs as can read them. Default: mail in
	// the data folder. Example:
	//
	//	folder: /var/lib/merlon/mail
	Folder string `yaml:"folder,omitempty"`
	// SMTP is the server that takes letters. Example:
	//
	//	smtp: {host: smtp.example.com, user: merlon, password: env:SMTP_PASSWORD}
	SMTP SMTP `yaml:"smtp,omitempty"`
}

// SMTP says which server takes letters, and how to log in to it.
type SMTP struct {
	// Host is the server's name or address. Its certificate must be good for
	// it; only on loopback, if neither ca nor port 465 is set, it is used
	// without TLS. Default: none, letters are written into folder. Example:
	//
	//	host: smtp.example.com
	Host string `yaml:"host,omitempty"`
	// Port is the server's port. With 465 TLS begins at once, with others by
	// STARTTLS. From 1 to 65535. Default: 587. Example:
	//
	//	port: 465
	Port int `yaml:"port,omitempty"`
	// User is the name to log in with. Default: none, no log-in. Example:
	//
	//	user: merlon
	User string `yaml:"user,omitempty"`
	// Password is where the password is kept: env:NAME or file:/path. Example:
	//
	//	password: file:/run/secrets/smtp
	Password secrets.Ref `yaml:"password,omitempty"`
	// CA is a file of certificates in PEM that sign the server's, if no public
	// authority does. Default: the system's authorities. Example:
	//
	//	ca: /etc/merlon/mail-ca.pem
	CA string `yaml:"ca,omitempty"`
	// Timeout is how long one try to send may take. From 1s to 5m. Default:
	// 30s. Example:
	//
	//	timeout: 10s
	Timeout time.Duration `yaml:"timeout,omitempty"`
}

// A Letter is one text to one person.
type Letter struct {
	To      string // one address
	Subject string // one line
	Text    string // plain text; lines end with "\n"
}

// A Mailer takes letters. Send returns at once; an error means that the
// letter is wrong or that there is no room for it, never that the address
// does not exist.
type Mailer interface {
	Send(Letter) error
}

// ErrFull is Send's answer when too many letters wait.
var ErrFull = errors.New("mail: too many letters are waiting")

// ErrClosed is Send's answer after Close.
var ErrClosed = errors.New("mail: closed")

const (
	queueLen  = 1000
	giveUp    = time.Hour
	firstWait = 5 * time.Second
	lastWait  = 5 * time.Minute
	maxText   = 64 << 10
	maxLine   = 200 // of a subject
)

// A Post is a [Mailer] with a queue and one worker.
type Post struct {
	from   *mail.Address
	send   func(context.Context, *mail.Address, Letter) error
	log    *slog.Logger
	queue  chan waiting
	done   chan struct{}
	cancel context.CancelFunc

	mu     sync.RWMutex
	closed bool

	now  func() time.Time
	wait func(ctx context.Context, d time.Duration)
}

type waiting struct {
	Letter
	since time.Time
}

// New returns a Post that is at work until Close. Host is what letters come
// from if the configuration names no sender; folder, where they are written
// if it names neither a server nor a folder.
func New(c Config, host, folder string, log *slog.Logger) (*Post, error) {
	return newPost(c, host, folder, log, queueLen)
}

func newPost(c Config, host, folder string, log *slog.Logger, room int) (*Post, error) {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	from := &mail.Address{Address: "merlon@" + host}
	if c.From != "" {
		a, err := mail.ParseAddress(c.From)
		if err != nil {
			bad("from", c.From, `must be an address such as "The Shop <no-reply@shop.example>"`)
		}
		from = a
	}
	p := &Post{from: from, log: log, now: time.Now, wait: sleep}
	if c.SMTP.Host != "" {
		send, err := newSMTP(c.SMTP)
		errs = append(errs, merlon.Within("smtp", err))
		p.send = send
	} else {
		if c.SMTP != (SMTP{}) {
			bad("smtp.host", "", "must be set if anything else of smtp is")
		}
		if c.Folder != "" {
			folder = c.Folder
		}
		p.send = folderSink(folder, log)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.queue, p.done = cancel, make(chan waiting, room), make(chan struct{})
	go p.work(ctx)
	return p, nil
}

// Send takes a letter. Whatever could end a header field or begin another is
// an error: addresses and subjects hold what people typed.
func (p *Post) Send(l Letter) error {
	if err := l.check(); err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return ErrClosed
	}
	select {
	case p.queue <- waiting{l, p.now()}:
		return nil
	default:
		p.log.Error("mail: the queue is full; a letter was dropped", "subject", l.Subject)
		return ErrFull
	}
}

// Close waits for letters under way until ctx ends, and drops the rest.
func (p *Post) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.queue)
	}
	p.mu.Unlock()
	defer p.cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.cancel()
		<-p.done
		return ctx.Err()
	}
}

func (p *Post) work(ctx context.Context) {
	defer close(p.done)
	for l := range p.queue {
		p.deliver(ctx, l)
	}
}

// deliver tries until the letter is out or is given up. One at a time: a
// server that is down is asked by one letter, not by a thousand.
func (p *Post) deliver(ctx context.Context, l waiting) {
	pause := firstWait
	for {
		err := p.send(ctx, p.from, l.Letter)
		if err == nil {
			return
		}
		var no *refusedError
		if errors.As(err, &no) || ctx.Err() != nil || p.now().Add(pause).Sub(l.since) > giveUp {
			p.log.Error("mail: a letter was given up", "subject", l.Subject, "error", err)
			return
		}
		p.log.Warn("mail: a letter could not be sent and is tried again", "subject", l.Subject, "in", pause, "error", err)
		p.wait(ctx, pause)
		pause = min(2*pause, lastWait)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// refusedError is a server's answer that trying again will not change.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

func (l Letter) check() error {
	a, err := mail.ParseAddress(l.To)
	switch {
	case err != nil || a.Name != "" || a.Address != l.To || strings.ContainsFunc(l.To, isControl):
		return errors.New("the address cannot be used")
	case l.Subject == "" || len(l.Subject) > maxLine || strings.ContainsFunc(l.Subject, isControl):
		return errors.New("the subject must be one short line")
	case len(l.Text) > maxText:
		return errors.New("the text is too long")
	}
	return nil
}

func isControl(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
}

// OneLine makes what people typed fit for a subject: without line ends and
// control characters, and short.
func OneLine(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' '
		}
		return r
	}, s)), " ")
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

func portOf(s SMTP) (int, error) {
	switch {
	case s.Port == 0:
		return 587, nil
	case s.Port < 0 || s.Port > 65535:
		return 0, merlon.BadSetting("port", strconv.Itoa(s.Port), "must be from 1 to 65535")
	}
	return s.Port, nil
}

// makeFolder makes the folder for letters, or makes sure that it is closed to others.
func makeFolder(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return os.Chmod(path, 0o700)
}
