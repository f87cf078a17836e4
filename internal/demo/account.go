package demo

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"
)

const (
	sessionCookie = "shop_session"
	visitorCookie = "shop_visitor"
	maxSessions   = 1000
	maxVisitors   = 500 // accounts beside the first ones
	maxOrders     = 500 // orders beside the first ones
)

// A session is somebody logged in.
type session struct {
	username string
	machine  *machine // what the tools' commands run on
}

func (s *Shop) session(r *http.Request) *session {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[c.Value]
}

func (s *Shop) me(r *http.Request) (user, error) {
	ses := s.session(r)
	if ses == nil {
		return user{}, errNobody
	}
	return s.user(r.Context(), ses.username)
}

// signIn gives the client a session and tells it who it is.
//
// HOLE (deliberate): neither cookie is HttpOnly, Secure or SameSite, and the
// session keeps the number that the browser brought, whoever put it there.
func (s *Shop) signIn(w http.ResponseWriter, r *http.Request, u user) {
	token := rand.Text()
	if c, err := r.Cookie(sessionCookie); err == nil && c.Value != "" && len(c.Value) <= 64 {
		token = c.Value
	}
	s.mu.Lock()
	if s.sessions[token] == nil {
		s.order = append(s.order, token)
	}
	s.sessions[token] = &session{username: u.Username, machine: newMachine()}
	if len(s.order) > maxSessions {
		delete(s.sessions, s.order[0])
		s.order = s.order[1:]
	}
	s.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: token, Path: "/"})
	http.SetCookie(w, &http.Cookie{Name: visitorCookie, Value: visitor{"shop.Visitor", u.Name, u.Role}.encode(), Path: "/"})
}

// A visitor is the object that the shop leaves with the browser, so that it
// need not ask the database who is calling.
//
// HOLE (deliberate): it is not signed, and what comes back is believed.
type visitor struct {
	Class string `json:"class"`
	Name  string `json:"name"`
	Role  string `json:"role"`
}

func (v visitor) encode() string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // three strings are always JSON
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func readVisitor(r *http.Request) (v visitor, err error) {
	c, err := r.Cookie(visitorCookie)
	if err != nil {
		return v, err
	}
	b, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(b, &v)
}

func (s *Shop) loginForm(w http.ResponseWriter, r *http.Request) error {
	v := s.view(r, "Log in")
	v.Data = r.URL.Query().Get("next")
	return s.render(w, http.StatusOK, "login", v)
}

// login is full of HOLES (deliberate): the user name becomes part of the
// statement, so that  admin' --  leaves no password to compare; nobody counts
// how often it is tried; the answer tells which names exist; the form may come
// from any page; and it leads on to wherever the link said.
func (s *Shop) login(w http.ResponseWriter, r *http.Request) error {
	statement := "SELECT username FROM users WHERE username = '" + r.PostFormValue("username") +
		"' AND password = '" + hashPassword(r.PostFormValue("password")) + "'"
	names, err := rows(r.Context(), s.db, func(rs *sql.Rows, name *string) error { return rs.Scan(name) }, statement)
	if err != nil {
		return tracedError(err, statement)
	}
	if len(names) == 0 {
		v := s.view(r, "Log in")
		v.Data = r.PostFormValue("next")
		v.Problem = "That is not the password."
		if _, err := s.user(r.Context(), r.PostFormValue("username")); errors.Is(err, sql.ErrNoRows) {
			v.Problem = "Nobody here has that user name."
		}
		return s.render(w, http.StatusUnauthorized, "login", v)
	}
	u, err := s.user(r.Context(), names[0])
	if err != nil {
		return err
	}
	s.signIn(w, r, u)
	http.Redirect(w, r, cmp.Or(r.PostFormValue("next"), "/account"), http.StatusSeeOther)
	return nil
}

func (s *Shop) registerForm(w http.ResponseWriter, r *http.Request) error {
	return s.render(w, http.StatusOK, "register", s.view(r, "Open an account"))
}

// welcome is what a new account is given.
const welcome cents = 100_00

var usernamePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,30}$`)

func (s *Shop) register(w http.ResponseWriter, r *http.Request) error {
	name, password := r.PostFormValue("username"), r.PostFormValue("password")
	v := s.view(r, "Open an account")
	if !usernamePattern.MatchString(name) || password == "" {
		v.Problem = "A user name has 2 to 31 small letters, digits, dots or hyphens, and a password is needed."
		return s.render(w, http.StatusUnprocessableEntity, "register", v)
	}
	if _, err := s.user(r.Context(), name); err == nil {
		v.Problem = "That user name is taken."
		return s.render(w, http.StatusConflict, "register", v)
	}
	u := user{Username: name, Name: name, Email: name + "@mail.example", Address: "to be collected", Role: "member", Password: hashPassword(password), Balance: welcome}
	if err := addUser(r.Context(), s.db, u, false); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(r.Context(), `DELETE FROM users WHERE keep = 0 AND id NOT IN
		(SELECT id FROM users WHERE keep = 0 ORDER BY id DESC LIMIT ?)`, maxVisitors); err != nil {
		return err
	}
	s.signIn(w, r, u)
	http.Redirect(w, r, "/account", http.StatusSeeOther)
	return nil
}

func (s *Shop) logout(w http.ResponseWriter, r *http.Request) error {
	if c, err := r.Cookie(sessionCookie); err == nil {
		s.mu.Lock()
		delete(s.sessions, c.Value)
		s.order = slices.DeleteFunc(s.order, func(token string) bool { return token == c.Value })
		s.mu.Unlock()
	}
	for _, name := range []string{sessionCookie, visitorCookie} {
		http.SetCookie(w, &http.Cookie{Name: name, Path: "/", MaxAge: -1})
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// A placed order is a row of the orders table, with its product's name.
type placed struct {
	ID                                      int
	Username, Slug, Name, Address, PlacedOn string
	Price                                   cents
}

const orderQuery = `SELECT o.id, o.username, o.slug, p.name, o.address, o.placed, o.price
	FROM orders o JOIN products p ON p.slug = o.slug `

func scanOrder(rs *sql.Rows, o *placed) error {
	return rs.Scan(&o.ID, &o.Username, &o.Slug, &o.Name, &o.Address, &o.PlacedOn, &o.Price)
}

func (s *Shop) account(w http.ResponseWriter, r *http.Request) error {
	v := s.view(r, "Your account")
	if v.Me == nil {
		return errNobody
	}
	orders, err := rows(r.Context(), s.db, scanOrder, orderQuery+"WHERE o.username = ? ORDER BY o.id DESC", v.Me.Username)
	if err != nil {
		return err
	}
	v.Notice = notices[r.URL.Query().Get("done")]
	v.Problem = problems[r.URL.Query().Get("wrong")]
	v.Data = orders
	return s.render(w, http.StatusOK, "account", v)
}

var (
	notices = map[string]string{
		"sent":   "The credit was sent.",
		"bought": "Thank you! Your order is being wrapped.",
	}
	problems = map[string]string{
		"amount":  "The amount must be more than nothing and no more than your balance.",
		"payee":   "There is no such member to send credit to.",
		"balance": "Your balance does not cover that.",
	}
)

// transfer moves credit to somebody else.
//
// HOLE (deliberate): it does not ask whether the user meant it, so that a page
// elsewhere can send the form, and it also obeys a link (GET).
func (s *Shop) transfer(w http.ResponseWriter, r *http.Request) error {
	u, err := s.me(r)
	if err != nil {
		return errNobody
	}
	to, amount := r.FormValue("to"), r.FormValue("amount")
	if r.Method == http.MethodGet && to == "" {
		http.Redirect(w, r, "/account#send", http.StatusSeeOther)
		return nil
	}
	answer := func(query string) error {
		http.Redirect(w, r, "/account?"+query, http.StatusSeeOther)
		return nil
	}
	euros, err := strconv.ParseFloat(amount, 64)
	if err != nil || !(euros >= 0.01 && euros < 1e9) {
		return answer("wrong=amount")
	}
	err = s.move(r.Context(), u.Username, to, cents(euros*100+0.5))
	switch {
	case errors.Is(err, errBalance):
		return answer("wrong=amount")
	case errors.Is(err, sql.ErrNoRows):
		return answer("wrong=payee")
	case err != nil:
		return err
	}
	return answer("done=sent")
}

// errBalance: the account has less than that.
var errBalance = errors.New("the balance does not cover that")

func (s *Shop) move(ctx context.Context, from, to string, amount cents) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := changeBalance(ctx, tx, to, amount); err != nil {
			return err
		}
		return pay(ctx, tx, from, amount)
	})
}

func pay(ctx context.Context, tx *sql.Tx, username string, amount cents) error {
	err := changeBalance(ctx, tx, username, -amount)
	if errors.Is(err, sql.ErrNoRows) {
		return errBalance
	}
	return err
}

// changeBalance answers sql.ErrNoRows if there is no such account or its
// balance would fall below nothing.
func changeBalance(ctx context.Context, tx *sql.Tx, username string, by cents) error {
	var left cents
	return tx.QueryRowContext(ctx, "UPDATE users SET balance = balance + ?1 WHERE username = ?2 AND balance + ?1 >= 0 RETURNING balance", by, username).Scan(&left)
}

func (s *Shop) inTx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (s *Shop) buy(w http.ResponseWriter, r *http.Request) error {
	u, err := s.me(r)
	if err != nil {
		return errNobody
	}
	p, err := s.productOf(r, r.PostFormValue("slug"))
	if errors.Is(err, sql.ErrNoRows) {
		return s.notFound(w, r)
	}
	if err != nil {
		return err
	}
	ctx := r.Context()
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if err := pay(ctx, tx, u.Username, p.Price); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (username, slug, price, address, placed, keep) VALUES (?, ?, ?, ?, ?, 0)",
			u.Username, p.Slug, p.Price, u.Address, time.Now().Format("2 January")); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM orders WHERE keep = 0 AND id NOT IN
			(SELECT id FROM orders WHERE keep = 0 ORDER BY id DESC LIMIT ?)`, maxOrders)
		return err
	})
	query := "done=bought"
	if errors.Is(err, errBalance) {
		query = "wrong=balance"
	} else if err != nil {
		return err
	}
	http.Redirect(w, r, "/account?"+query, http.StatusSeeOther)
	return nil
}

// orderPage is a HOLE (deliberate): it asks whether somebody is logged in, but
// not whose order it is.
func (s *Shop) orderPage(w http.ResponseWriter, r *http.Request) error {
	v := s.view(r, "Order "+r.PathValue("id"))
	if v.Me == nil {
		return errNobody
	}
	found, err := rows(r.Context(), s.db, scanOrder, orderQuery+"WHERE o.id = ?", r.PathValue("id"))
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return s.notFound(w, r)
	}
	v.Data = found[0]
	return s.render(w, http.StatusOK, "order", v)
}

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // the client may be gone; there is nobody left to tell
	return nil
}
