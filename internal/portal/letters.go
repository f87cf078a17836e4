package portal

import (
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/internal/portal/mail"
)

// Letters words what people are told by mail, and gives it to a mailer. It
// implements [identity.Letters].
type Letters struct {
	brand string
	mail  mail.Mailer
	log   *slog.Logger
	texts *texts
}

// NewLetters returns Letters that speak in the name of the brand.
func NewLetters(b Brand, m mail.Mailer, log *slog.Logger) (*Letters, error) {
	t, err := loadTexts(textFiles)
	if err != nil {
		return nil, err
	}
	return &Letters{brand: b.Name, mail: m, log: log, texts: t}, nil
}

// links are where the letters with a secret lead to.
var links = map[string]string{
	identity.RecoverLetter:     "recover/link",
	identity.RegisterLetter:    "register/link",
	identity.VerifyEmailLetter: "verify",
}

// Letter takes one letter. It neither waits nor fails: whether there is
// somebody to write to must show nowhere.
func (l *Letters) Letter(in identity.Letter) {
	if in.To == "" {
		return
	}
	if err := l.mail.Send(l.write(in)); err != nil {
		l.log.Error("portal: a letter was not taken", "kind", in.Kind, "error", err)
	}
}

// write words a letter. All that people have typed is one line in it, so that
// no stranger can write letters of their own in our name.
func (l *Letters) write(in identity.Letter) mail.Letter {
	t := l.texts.choose(in.Languages)
	brand := mail.OneLine(l.brand)
	if brand == "" {
		brand = mail.OneLine(in.Site)
	}
	until := in.Until.UTC().Format("2006-01-02 15:04") + " UTC"
	args := []any{brand, mail.OneLine(in.Account.Name), until, mail.OneLine(in.Detail)}
	key := "letter." + in.Kind
	var b strings.Builder
	para := func(lines ...string) { b.WriteString(strings.Join(lines, "\n") + "\n\n") }
	if name := plainName(in.Account.Display); name != "" {
		para(t.get("letter.greeting", name))
	} else {
		para(t.get("letter.hello"))
	}
	para(t.get(key+".text", args...))
	if path, ok := links[in.Kind]; ok {
		para(in.Origin + Prefix + path + "?" + url.Values{"token": {in.Secret}}.Encode())
		para(t.get("letter.ignore"))
	} else {
		when := in.Time
		if when.IsZero() {
			when = time.Now()
		}
		client := "?"
		if in.Client.IsValid() {
			client = in.Client.String()
		}
		para(t.get("letter.time", when.UTC().Format("2006-01-02 15:04")+" UTC"), t.get("letter.client", client, t.agent(in.Agent)))
		para(t.get("letter.not-you", in.Origin+Prefix+"account"))
	}
	b.WriteString(t.get("letter.end", brand) + "\n")
	return mail.Letter{To: in.To, Subject: t.get(key+".subject", args...), Text: b.String()}
}

// plainName returns a display name that is only a name: what strangers type
// when they register must not become a link in a letter of ours.
func plainName(s string) string {
	s = mail.OneLine(s)
	if strings.ContainsAny(s, "/:@<>") || strings.Contains(strings.ToLower(s), "www.") {
		return ""
	}
	return s
}
