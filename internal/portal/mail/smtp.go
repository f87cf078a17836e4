package mail

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/merlon-dev/merlon"
)

type sink = func(context.Context, *netmail, Letter) error

// newSMTP returns what hands letters to the server. The password is read at
// every try, so that one that was changed needs no restart.
func newSMTP(c SMTP) (sink, error) {
	var errs []error
	port, err := portOf(c)
	errs = append(errs, err)
	if c.Timeout != 0 && (c.Timeout < time.Second || c.Timeout > 5*time.Minute) {
		errs = append(errs, merlon.BadSetting("timeout", c.Timeout.String(), "must be from 1s to 5m"))
	}
	if (c.User == "") != (c.Password == "") {
		errs = append(errs, merlon.BadSetting("user", c.User, "needs a password beside it, and a password a user"))
	}
	if c.Password != "" {
		if _, err := c.Password.Resolve(); err != nil {
			errs = append(errs, merlon.BadSetting("password", string(c.Password), err.Error()))
		}
	}
	var pool *x509.CertPool
	if c.CA != "" {
		if pool, err = authorities(c.CA); err != nil {
			errs = append(errs, merlon.BadSetting("ca", c.CA, err.Error()))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	options := smtpOptions(c, port, pool)
	encrypted := port == 465 || !c.plain()
	return func(ctx context.Context, from *netmail, l Letter) error {
		m, err := message(from, l)
		if err != nil {
			return &refusedError{err}
		}
		return handOver(ctx, c, options, encrypted, m)
	}, nil
}

// plain reports whether STARTTLS is not asked for: on loopback nobody is on
// the wire, and a local mail server often has no certificate.
func (c SMTP) plain() bool { return loopback(c.Host) && c.CA == "" }

func authorities(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("has no certificates in PEM")
	}
	return pool, nil
}

func smtpOptions(c SMTP, port int, pool *x509.CertPool) []gomail.Option {
	o := []gomail.Option{
		gomail.WithPort(port),
		gomail.WithTimeout(c.Timeout),
		gomail.WithTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.Host, RootCAs: pool}),
	}
	switch {
	case port == 465:
		o = append(o, gomail.WithSSL())
	case c.plain():
		o = append(o, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		o = append(o, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	return o
}

func handOver(ctx context.Context, c SMTP, options []gomail.Option, encrypted bool, m *gomail.Msg) error {
	if c.User != "" {
		password, err := c.Password.Resolve()
		if err != nil {
			return err
		}
		how := gomail.SMTPAuthAutoDiscover
		if !encrypted {
			how = gomail.SMTPAuthPlainNoEnc
		}
		options = append(options[:len(options):len(options)],
			gomail.WithSMTPAuth(how), gomail.WithUsername(c.User), gomail.WithPassword(password.Reveal()))
	}
	client, err := gomail.NewClient(c.Host, options...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	err = client.DialAndSendWithContext(ctx, m)
	if no, ok := errors.AsType[*gomail.SendError](err); ok && !no.IsTemp() && permanent(no) {
		return &refusedError{err}
	}
	return err
}

// permanent reports whether the server itself said that it will never take
// this letter (RFC 5321, 4.2.1); a broken connection says nothing of the kind.
func permanent(e *gomail.SendError) bool { return e.ErrorCode() >= 500 && e.ErrorCode() < 600 }

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

type netmail = mail.Address

func message(from *netmail, l Letter) (*gomail.Msg, error) {
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	m.FromMailAddress(from)
	if err := m.To(l.To); err != nil {
		return nil, err
	}
	m.Subject(l.Subject)
	m.SetDate()
	m.SetMessageIDWithValue(rand.Text() + "@" + domain(from.Address))
	// So that absence notes and the like are not sent back (RFC 3834).
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetBodyString(gomail.TypeTextPlain, l.Text)
	return m, nil
}

func domain(address string) string {
	for i := len(address) - 1; i >= 0; i-- {
		if address[i] == '@' {
			return address[i+1:]
		}
	}
	return address
}

// folderSink writes letters into files that only their owner can read. The
// log says where: whoever tries Merlon out without a mail server finds the
// links there.
func folderSink(folder string, log *slog.Logger) sink {
	return func(_ context.Context, from *netmail, l Letter) error {
		m, err := message(from, l)
		if err != nil {
			return &refusedError{err}
		}
		if err := makeFolder(folder); err != nil {
			return err
		}
		path := filepath.Join(folder, fmt.Sprintf("%s-%s.eml", time.Now().UTC().Format("20060102T150405.000"), rand.Text()[:8]))
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = m.WriteTo(f)
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(path) // half a letter helps nobody
			return err
		}
		log.Info("mail: a letter was written into a file, since no mail server is set", "file", path, "subject", l.Subject)
		return nil
	}
}
