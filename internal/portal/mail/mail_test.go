package mail_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	netmail "net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/internal/portal/mail"
	"github.com/merlon-dev/merlon/secrets"
)

var quiet = slog.New(slog.DiscardHandler)

func closed(t *testing.T, p *mail.Post) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func letters(t *testing.T, folder string) []*netmail.Message {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	var out []*netmail.Message
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := netmail.ReadMessage(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, b)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %v, %v", name, info.Mode(), err)
		}
		out = append(out, m)
	}
	return out
}

func TestALetterIsWrittenIntoAFile(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "mail")
	var log bytes.Buffer
	p, err := mail.New(mail.Config{}, "shop.example:8443", folder, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Send(mail.Letter{To: "ann@example.com", Subject: "Größe", Text: "Hello,\n.\nhttps://shop.example/x?token=SECRET\n"}); err != nil {
		t.Fatal(err)
	}
	closed(t, p)
	got := letters(t, folder)
	if len(got) != 1 {
		t.Fatalf("%d letters", len(got))
	}
	h := got[0].Header
	body, _ := io.ReadAll(got[0].Body)
	if h.Get("From") != "<merlon@shop.example>" || h.Get("To") != "<ann@example.com>" || h.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(string(body), "https://shop.example/x?token") {
		t.Errorf("%v\n%s", h, body)
	}
	if !strings.HasSuffix(h.Get("Message-Id"), "@shop.example>") {
		t.Errorf("message id %q", h.Get("Message-Id"))
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder can be read by others: %v", err)
	}
	if !strings.Contains(log.String(), folder) || strings.Contains(log.String(), "SECRET") {
		t.Errorf("the log must say where the letter is, and nothing of it: %s", &log)
	}
	if err := p.Send(mail.Letter{To: "ann@example.com", Subject: "x"}); !errors.Is(err, mail.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestNobodyWritesHeadersOfTheirOwn(t *testing.T) {
	p, err := mail.New(mail.Config{}, "shop.example", t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, p)
	for _, l := range []mail.Letter{
		{To: "ann@example.com\r\nBcc: all@example.com", Subject: "x"},
		{To: "ann@example.com, bob@example.com", Subject: "x"},
		{To: "Ann <ann@example.com>", Subject: "x"},
		{To: "", Subject: "x"},
		{To: "ann", Subject: "x"},
		{To: "ann@example.com", Subject: "x\nBcc: all@example.com"},
		{To: "ann@example.com", Subject: "x\r\n\r\nbody"},
		{To: "ann@example.com", Subject: "x\u2028y"},
		{To: "ann@example.com", Subject: ""},
		{To: "ann@example.com", Subject: strings.Repeat("x", 300)},
		{To: "ann@example.com", Subject: "x", Text: strings.Repeat("x", 1<<20)},
	} {
		if err := p.Send(l); err == nil {
			t.Errorf("was taken: %.80q", l)
		}
	}
}

// SC-50: a server that is down delays nobody and fills nothing without bound.
func TestADeadServerDelaysNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	var mu sync.Mutex
	now := time.Now()
	tries := make(chan time.Duration, 100)
	p, err := mail.NewSmall(mail.Config{SMTP: mail.SMTP{Host: "127.0.0.1", Port: port}}, "", quiet, 3,
		func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
		func(d time.Duration) { mu.Lock(); now = now.Add(d); mu.Unlock(); tries <- d })
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	full := 0
	for range 200 {
		if err := p.Send(mail.Letter{To: "ann@example.com", Subject: "x", Text: "x"}); errors.Is(err, mail.ErrFull) {
			full++
		}
	}
	if d := time.Since(began); d > 2*time.Second || full == 0 {
		t.Errorf("200 letters took %v, %d were refused", d, full)
	}
	first, second := <-tries, <-tries
	if first >= second {
		t.Errorf("pauses do not grow: %v, %v", first, second)
	}
	closed(t, p) // each is given up after an hour of the clock above
}

// A server takes letters as mail.SMTP servers do, without TLS.
type server struct {
	l    net.Listener
	says string // to MAIL

	mu      sync.Mutex
	letters []string
	tries   int
}

func (s *server) serve() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.talk(textproto.NewConn(c))
	}
}

func (s *server) talk(c *textproto.Conn) {
	defer func() { _ = c.Close() }()
	say := func(line string) { _ = c.PrintfLine("%s", line) }
	say("220 test ESMTP")
	for {
		line, err := c.ReadLine()
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch verb {
		case "EHLO":
			say("250-test\r\n250 AUTH PLAIN")
		case "AUTH":
			say("235 ok")
		case "MAIL":
			s.mu.Lock()
			s.tries++
			s.mu.Unlock()
			say(s.says)
		case "DATA":
			say("354 go on")
			b, err := c.ReadDotBytes()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.letters = append(s.letters, string(b))
			s.mu.Unlock()
			say("250 ok")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func startServer(t *testing.T, says string) (*server, int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := &server{l: l, says: says}
	go s.serve()
	return s, l.Addr().(*net.TCPAddr).Port
}

func TestAServerTakesLetters(t *testing.T) {
	s, port := startServer(t, "250 ok")
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := mail.New(mail.Config{From: "The Shop <no-reply@shop.example>", SMTP: mail.SMTP{Host: "127.0.0.1", Port: port, User: "u", Password: secrets.Ref("file:" + password)}}, "x", "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Send(mail.Letter{To: "ann@example.com", Subject: "Hello", Text: "a\n.\nb\n"}); err != nil {
		t.Fatal(err)
	}
	closed(t, p)
	if len(s.letters) != 1 || !strings.Contains(s.letters[0], `From: "The Shop" <no-reply@shop.example>`) || !strings.Contains(s.letters[0], "a\n.\nb") {
		t.Errorf("%q", s.letters)
	}
}

func TestWhatTheServerNeverTakesIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		says string
		most int
	}{{"550 no such user", 1}, {"451 later", 100}} {
		s, port := startServer(t, c.says)
		var mu sync.Mutex
		now := time.Now()
		p, err := mail.NewSmall(mail.Config{SMTP: mail.SMTP{Host: "127.0.0.1", Port: port}}, "", quiet, 3,
			func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
			func(d time.Duration) { mu.Lock(); now = now.Add(d); mu.Unlock() })
		if err != nil {
			t.Fatal(err)
		}
		_ = p.Send(mail.Letter{To: "ann@example.com", Subject: "x", Text: "x"})
		closed(t, p)
		if s.tries > c.most || c.most > 1 && s.tries < 5 {
			t.Errorf("%s: %d tries", c.says, s.tries)
		}
	}
}

// A letter with a link is as good as a password: it does not go out in the
// clear, nor to whom a certificate does not name.
func TestNoTLSNoLetter(t *testing.T) {
	host := "" // an address of this machine that is not loopback
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			host = n.IP.String()
		}
	}
	if host == "" {
		t.Skip("this machine has no address but loopback")
	}
	o := open(t, net.JoinHostPort(host, "0"), nil, false)
	post(t, mail.SMTP{Host: host, Port: o.port(), User: "u", Password: passwordFile(t, "hunter2"), Timeout: 2 * time.Second})
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.came == 0 || o.clear > 0 {
		t.Errorf("%d came, %d commands in the clear: %q, %q", o.came, o.clear, o.logins, o.letters)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config mail.Config
		want   string
	}{
		{mail.Config{From: "nobody"}, `from "nobody": must be an address`},
		{mail.Config{From: "a@b.example\r\nBcc: c@d.example"}, "from"},
		{mail.Config{SMTP: mail.SMTP{User: "u"}}, "smtp.host: must be set"},
		{mail.Config{SMTP: mail.SMTP{Host: "h", User: "u"}}, "smtp.user"},
		{mail.Config{SMTP: mail.SMTP{Host: "h", Port: 70000}}, "smtp.port"},
		{mail.Config{SMTP: mail.SMTP{Host: "h", Timeout: time.Hour}}, "smtp.timeout"},
		{mail.Config{SMTP: mail.SMTP{Host: "h", User: "u", Password: "env:MERLON_TEST_UNSET"}}, "smtp.password"},
		{mail.Config{SMTP: mail.SMTP{Host: "h", CA: "mail_test.go"}}, "smtp.ca"},
		{mail.Config{SMTP: mail.SMTP{Host: "h", CA: "nowhere.pem"}}, "smtp.ca"},
	} {
		p, err := mail.New(c.config, "shop.example", t.TempDir(), quiet)
		if err == nil {
			closed(t, p)
			t.Errorf("%+v was accepted", c.config)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v does not say %q", err, c.want)
		}
	}
}

// Whatever people type, a subject stays one line.
func FuzzOneLine(f *testing.F) {
	f.Add("a\r\nBcc: b")
	f.Add("\u2028\x85")
	f.Fuzz(func(t *testing.T, s string) {
		out := mail.OneLine(s)
		for _, r := range out {
			if r < ' ' || r == 0x7f || r == '\u0085' || r == '\u2028' {
				t.Errorf("%q became %q", s, out)
			}
		}
		if len(out) > 90 {
			t.Errorf("%d bytes", len(out))
		}
	})
}
