package portal_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/portal"
	"github.com/merlon-dev/merlon/internal/portal/mail"
)

var letterKinds = []string{
	identity.RecoverLetter, identity.RegisterLetter, identity.KnownLetter, identity.VerifyEmailLetter, identity.EmailChanged,
	identity.PasswordChanged, identity.FactorAdded, identity.FactorRemoved, identity.CodesReplaced, identity.CodeUsed,
	identity.NewDevice, identity.ProviderLinked, identity.UnderAttack, identity.KeyCloned,
}

func newLetters(t testing.TB, brand string, m mail.Mailer) *portal.Letters {
	t.Helper()
	l, err := portal.NewLetters(portal.Brand{Name: brand}, m, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestEveryLetterIsWorded(t *testing.T) {
	l := newLetters(t, "The Shop", nil)
	for _, kind := range letterKinds {
		got := l.Write(identity.Letter{
			Kind: kind, To: "ann@example.com", Account: account.Account{Name: "ann", Display: "Ann"}, Origin: "https://shop.example", Site: "shop.example",
			Secret: "S+/=", Until: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Time: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC),
			Client: netip.MustParseAddr("192.0.2.1"), Agent: "Firefox/1 Linux", Detail: "my phone",
		})
		if got.To != "ann@example.com" || !strings.Contains(got.Text, "The Shop") || strings.Contains(got.Subject+got.Text, "letter.") || strings.Contains(got.Text, "{") || !strings.HasPrefix(got.Text, "Hello Ann,\n") {
			t.Errorf("%s: %+v", kind, got)
		}
		secret := kind == identity.RecoverLetter || kind == identity.RegisterLetter || kind == identity.VerifyEmailLetter
		if strings.Contains(got.Text, "?token=S%2B%2F%3D") != secret || strings.Contains(got.Subject, "S+") {
			t.Errorf("%s: %s", kind, got.Text)
		}
		if secret && !strings.Contains(got.Text, "2026-01-02 03:04 UTC") || !secret && !strings.Contains(got.Text, "192.0.2.1, Firefox on Linux") {
			t.Errorf("%s: %s", kind, got.Text)
		}
	}
}

func TestLettersSpeakTheLanguageOfTheBrowser(t *testing.T) {
	l := newLetters(t, "Der Hafen", nil)
	for _, kind := range letterKinds {
		in := identity.Letter{Kind: kind, To: "ann@example.com", Account: account.Account{Name: "ann"}, Origin: "https://shop.example", Languages: "de-CH, en;q=0.5"}
		got, english := l.Write(in), in
		english.Languages = ""
		if !strings.HasPrefix(got.Text, "Guten Tag,\n") || strings.Contains(got.Text, "{") || got.Subject == l.Write(english).Subject {
			t.Errorf("%s: %+v", kind, got)
		}
	}
}

// What strangers type does not become a letter of theirs.
func FuzzLetter(f *testing.F) {
	f.Add("Ann\r\nBcc: all@example.com", "https://evil.example/ click", "x\n\nDear customer")
	f.Add("{0}{1}{2}{3}", "www.evil.example", "\u2028")
	l := newLetters(f, "", nil)
	f.Fuzz(func(t *testing.T, name, display, detail string) {
		for _, kind := range letterKinds {
			got := l.Write(identity.Letter{
				Kind: kind, To: "a@b.example", Account: account.Account{Name: name, Display: display}, Origin: "https://shop.example",
				Site: "shop.example", Secret: "S", Detail: detail,
			})
			plain := l.Write(identity.Letter{
				Kind: kind, To: "a@b.example", Account: account.Account{Name: "n", Display: "d"}, Origin: "https://shop.example",
				Site: "shop.example", Secret: "S", Detail: "t",
			})
			if strings.ContainsAny(got.Subject, "\r\n") || strings.Count(got.Text, "\n") != strings.Count(plain.Text, "\n") {
				t.Errorf("%s of %q, %q, %q: %q", kind, name, display, detail, got)
			}
			if first, _, _ := strings.Cut(got.Text, "\n"); strings.ContainsAny(first, "/:@") {
				t.Errorf("the greeting holds a link: %q", first)
			}
		}
	})
}

type fullMailer struct{}

func (fullMailer) Send(mail.Letter) error { return errors.New("full") }

func TestALetterThatIsNotTakenStopsNothing(t *testing.T) {
	l := newLetters(t, "", fullMailer{})
	l.Letter(identity.Letter{Kind: identity.NewDevice, To: "a@b.example"})
	l.Letter(identity.Letter{Kind: identity.NewDevice})
}
