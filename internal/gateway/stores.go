package gateway

import (
	"context"
	"crypto/rand"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"sync"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/apikey"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/portal/mail"
	"github.com/merlon-dev/merlon/internal/portal/resume"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/secrets"
)

// Stores are what is remembered of people. They outlive reloads.
type Stores struct {
	Key      secrets.Key
	Accounts account.Store
	Sessions session.Store
	Keys     apikey.Store
	Tokens   token.Store
	Grants   provider.Store
	Tries    attempts.Store
	Seen     oidc.Seen
	Resume   *resume.Keeper
	Post     mail.Mailer

	close func(context.Context) error // of Post

	mu      sync.Mutex
	hashes  password.Config
	hasher  *password.Hasher
	signs   token.Config
	tokens  *token.Service
	running context.CancelFunc // ends what the tokens do by themselves
}

// tokensFor returns the service that there is if its configuration is the
// same, since what is open with its tokens ends with it; otherwise a new one.
func (s *Stores) tokensFor(c token.Config) (*token.Service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens != nil && reflect.DeepEqual(s.signs, c) {
		return s.tokens, nil
	}
	return token.New(context.Background(), c, s.Key, s.Tokens)
}

// lookAfter has a service of tokensFor rotate its keys and hear of revocations,
// in the place of the one before. A configuration that is only tried, or cannot
// be used after all, does not come so far.
func (s *Stores) lookAfter(t *token.Service, c token.Config, fail func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens == t {
		return
	}
	if s.running != nil {
		s.running()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.signs, s.tokens, s.running = c, t, cancel
	go func() {
		if err := t.Run(ctx); err != nil && ctx.Err() == nil {
			fail(err)
		}
	}()
}

// hasherFor returns the one that there is if its configuration is the same, so
// that a reload neither measures again nor doubles what is hashed at once.
func (s *Stores) hasherFor(c password.Config) (*password.Hasher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hasher != nil && reflect.DeepEqual(s.hashes, c) {
		return s.hasher, nil
	}
	h, err := password.New(c)
	if err == nil {
		s.hashes, s.hasher = c, h
	}
	return h, err
}

// rehearsed is how many accounts are looked at for kinds of hashes.
const rehearsed = 10_000

// rehearse tells the hasher which kinds of hashes there are, so that the first
// log-in of each kind takes no other time than the next (trap 42 of mixed
// populations).
func (s *Stores) rehearse(ctx context.Context, h *password.Hasher) error {
	seen := map[string]bool{}
	after := ""
	for n := 0; n < rehearsed; {
		list, err := s.Accounts.Accounts(ctx, "", after, 500)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, a := range list {
			if kind := hashKind(a.Password); kind != "" && !seen[kind] {
				seen[kind] = true
				if err := h.Rehearse(ctx, a.Password); err != nil {
					return err
				}
			}
		}
		n += len(list)
		after = list[len(list)-1].Name
	}
	return nil
}

// hashKind is a hash's algorithm and cost, without salt and digest.
func hashKind(stored string) string {
	parts := strings.Split(stored, "$")
	if len(parts) < 4 {
		return ""
	}
	return strings.Join(parts[:len(parts)-2], "$")
}

// OpenStores opens what f says about people, in what st has opened; nil if
// nobody signs in there.
func OpenStores(f *config.File, st *State, log *slog.Logger) (*Stores, error) {
	c, on := f.SignIn()
	if !on {
		return nil, nil
	}
	db := st.db
	s := &Stores{
		Key: st.Key, Accounts: db.Accounts(), Sessions: db.Sessions(), Keys: db.Keys(), Tokens: db.Tokens(), Grants: db.Grants(),
		Tries: attempts.NewMemory(c.Attempts.Places), Seen: oidc.NewMemory(), Resume: st.Resume,
	}
	if st.redis != nil {
		link := st.redis.Client
		s.Sessions, s.Tries, s.Seen = live.NewSessions(link), live.NewTries(link), live.NewSeen(link)
		if _, err := link(); err != nil {
			log.Error("Redis is not there: people are told 503 until it is, as sessions are kept in it", "error", err)
		}
	}
	post, err := mail.New(c.Mail, mailHost(f), filepath.Join(f.Data, "mail"), log)
	if err != nil {
		return nil, merlon.Within("identity.mail", err)
	}
	s.Post, s.close = post, post.Close
	return s, nil
}

// OpenDB opens the database that f names.
func OpenDB(ctx context.Context, f *config.File) (*store.DB, error) {
	c := store.Config{Dir: f.Data}
	if f.Store != "" {
		var err error
		if c.URL, err = f.Store.Resolve(); err != nil {
			return nil, merlon.Within("store", err)
		}
	}
	db, err := store.Open(ctx, c)
	if err != nil {
		return nil, merlon.Within("store", err)
	}
	return db, nil
}

// Close lets letters under way go out until ctx ends. What the state has opened
// stays open.
func (s *Stores) Close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	if s.running != nil {
		s.running()
	}
	return s.close(ctx)
}

// mailHost is what letters come from if the configuration names no sender.
func mailHost(f *config.File) string {
	for _, s := range f.Sites {
		for _, h := range s.Host {
			if canonical, err := siteHost(h); err == nil && h != "*" && canonical == h {
				return h
			}
		}
	}
	return "localhost"
}

// rehearsal are stores for a gateway that is only built to see whether it can be.
func rehearsal() *Stores {
	key, err := secrets.NewKey(secrets.New(rand.Text() + rand.Text()))
	if err != nil {
		panic(err) // 52 bytes are enough
	}
	return &Stores{
		Key: key, Sessions: session.NewMemory(1), Keys: apikey.NewMemory(), Tokens: token.NewMemory(),
		Grants: provider.NewMemory(), Seen: oidc.NewMemory(), Resume: resume.New(key), Accounts: noAccounts{}, Post: noPost{},
	}
}

// noAccounts is a store that nobody may ask.
type noAccounts struct{ account.Store }

// noPost takes no letters.
type noPost struct{}

// Send drops the letter.
func (noPost) Send(mail.Letter) error { return nil }
