package demo

import (
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
)

// The back office: what only the shopkeeper may see.

// admin is a HOLE (deliberate): it believes the role in the visitor's cookie,
// and the one in a header field, whoever sent that.
func (s *Shop) admin(w http.ResponseWriter, r *http.Request) error {
	v := s.view(r, "Back office")
	status := http.StatusForbidden
	if v.Visitor.Role == "admin" || slices.Contains(strings.Split(r.Header.Get("Merlon-Roles"), ","), "admin") {
		status = http.StatusOK
		all, err := rows(r.Context(), s.db, func(rs *sql.Rows, u *user) error {
			return rs.Scan(&u.Username, &u.Name, &u.Email, &u.Address, &u.Balance)
		}, "SELECT username, name, email, address, balance FROM users WHERE keep = 1 ORDER BY id")
		if err != nil {
			return err
		}
		v.Data = all
	}
	return s.render(w, status, "admin", v)
}

// members lists who writes reviews, for the shop's phone app.
//
// HOLE (deliberate): it sends whole rows, password hashes included.
func (s *Shop) members(w http.ResponseWriter, r *http.Request) error {
	type member struct {
		Username string `json:"username"`
		Name     string `json:"name"`
		Password string `json:"password"`
	}
	all, err := rows(r.Context(), s.db, func(rs *sql.Rows, m *member) error {
		return rs.Scan(&m.Username, &m.Name, &m.Password)
	}, "SELECT username, name, password FROM users WHERE keep = 1 AND role = 'member' ORDER BY id")
	if err != nil {
		return err
	}
	return writeJSON(w, all)
}

// tokenKey signs the tokens of the back office's app.
const tokenKey = "gull-and-kettle-61"

// officeClaims is what a token of the back office's app says.
type officeClaims struct {
	Sub  string `json:"sub"`
	Role string `json:"role"`
}

func signedPart(header, claims any) (string, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c), nil
}

func hs256(part string) string {
	m := hmac.New(sha256.New, []byte(tokenKey))
	m.Write([]byte(part))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// token gives the back office's app a token for a name and a password.
func (s *Shop) token(w http.ResponseWriter, r *http.Request) error {
	u, err := s.user(r.Context(), r.PostFormValue("username"))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err != nil || u.Password != hashPassword(r.PostFormValue("password")) {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return nil
	}
	part, err := signedPart(map[string]string{"alg": "HS256", "typ": "JWT"}, officeClaims{u.Username, u.Role})
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]string{"access_token": part + "." + hs256(part)})
}

// readToken is a HOLE (deliberate): the token itself says how it is signed,
// and "none" is believed, too.
func readToken(r *http.Request) (c officeClaims, ok bool) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	i := strings.LastIndexByte(text, '.')
	if !ok || i < 0 {
		return c, false
	}
	part, signature := text[:i], text[i+1:]
	head, body, _ := strings.Cut(part, ".")
	var header struct{ Alg string }
	if !readPart(head, &header) || !readPart(body, &c) {
		return c, false
	}
	return c, header.Alg == "none" || header.Alg == "HS256" && hmac.Equal([]byte(signature), []byte(hs256(part)))
}

func readPart(text string, v any) bool {
	b, err := base64.RawURLEncoding.DecodeString(text)
	return err == nil && json.Unmarshal(b, v) == nil
}

// customers lists everybody's address, for the back office's app.
func (s *Shop) customers(w http.ResponseWriter, r *http.Request) error {
	c, ok := readToken(r)
	if !(ok && c.Role == "admin") && !slices.Contains(strings.Split(r.Header.Get("Merlon-Roles"), ","), "admin") {
		http.Error(w, "only the shopkeeper may ask", http.StatusForbidden)
		return nil
	}
	type customer struct {
		Username string `json:"username"`
		Email    string `json:"email"`
		Address  string `json:"address"`
	}
	all, err := rows(r.Context(), s.db, func(rs *sql.Rows, c *customer) error {
		return rs.Scan(&c.Username, &c.Email, &c.Address)
	}, "SELECT username, email, address FROM users WHERE keep = 1 ORDER BY id")
	if err != nil {
		return err
	}
	return writeJSON(w, all)
}
