package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
)

// A userRecord is an account in a file, as it is exported and imported.
type userRecord struct {
	ID            string    `json:"id,omitempty"`
	Name          string    `json:"name"`
	Display       string    `json:"display,omitempty"`
	Email         string    `json:"email,omitempty"`
	EmailVerified bool      `json:"email_verified,omitempty"`
	Groups        []string  `json:"groups"`
	Roles         []string  `json:"roles"`
	Disabled      bool      `json:"disabled"`
	MustChange    bool      `json:"must_change_password,omitempty"`
	Password      string    `json:"password,omitempty"` // a hash
	PasswordSince time.Time `json:"password_since,omitzero"`
	Plain         string    `json:"plain_password,omitempty"` // only in imports
	Created       time.Time `json:"created,omitzero"`

	place string          // where in the file it is
	given map[string]bool // what the file says something about
}

func recordOf(a account.Account) userRecord {
	return userRecord{
		ID: a.ID, Name: a.Name, Display: a.Display, Email: a.Email, EmailVerified: a.EmailVerified, Groups: list(a.Groups), Roles: list(a.Roles),
		Disabled: a.Disabled, MustChange: a.MustChange, Password: a.Password, PasswordSince: a.PasswordSince, Created: a.Created,
	}
}

// The formats of files with accounts.
const (
	formatJSON     = "json"
	formatCSV      = "csv"
	formatHtpasswd = "htpasswd"
)

// formatOf guesses a file's format from its name and beginning.
func formatOf(name string, data []byte) string {
	switch lower := strings.ToLower(name); {
	case strings.HasSuffix(lower, ".json"), strings.HasSuffix(lower, ".jsonl"):
		return formatJSON
	case strings.HasSuffix(lower, ".csv"):
		return formatCSV
	case strings.HasSuffix(lower, "htpasswd"):
		return formatHtpasswd
	}
	start := bytes.TrimSpace(data)
	line, _, _ := bytes.Cut(start, []byte("\n"))
	switch {
	case len(start) > 0 && (start[0] == '[' || start[0] == '{'):
		return formatJSON
	case slices.Contains(strings.Split(strings.TrimSpace(string(line)), ","), "name"):
		return formatCSV
	}
	return formatHtpasswd
}

// parseUsers reads a file of accounts and tells every mistake with its place,
// but no hash and no password.
func parseUsers(format string, data []byte) ([]userRecord, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF")) // spreadsheets write it
	var records []userRecord
	var err error
	switch format {
	case formatJSON:
		records, err = parseJSON(data)
	case formatCSV:
		records, err = parseCSV(data)
	case formatHtpasswd:
		records, err = parseHtpasswd(data)
	default:
		return nil, fmt.Errorf("--format %q: must be json, csv or htpasswd", format)
	}
	if err != nil {
		return nil, err
	}
	return records, checkRecords(records)
}

// checkRecords folds names and addresses and says what is wrong with them.
func checkRecords(records []userRecord) error {
	var errs []error
	names, ids := map[string]string{}, map[string]string{}
	for i := range records {
		r := &records[i]
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: %w", r.place, fmt.Errorf(format, args...)))
		}
		name, err := account.Fold(r.Name)
		if err != nil {
			bad("name %q: %w", r.Name, err)
			continue
		}
		r.Name = name
		if other, ok := names[name]; ok {
			bad("%q is in %s, too", name, other)
		}
		names[name] = r.place
		if r.ID != "" {
			if other, ok := ids[r.ID]; ok {
				bad("its id is in %s, too", other)
			}
			if !goodID(r.ID) {
				bad("id: must be 1 to 64 letters, digits, - and _")
			}
			ids[r.ID] = r.place
		}
		if r.Email != "" {
			if r.Email, err = account.FoldEmail(r.Email); err != nil {
				bad("email: %w", err)
			}
		}
		if r.Password != "" && r.Plain != "" {
			bad("has a hash and a password in clear; leave one out")
		}
		r.Groups, r.Roles = tidy(r.Groups), tidy(r.Roles)
	}
	return errors.Join(errs...)
}

func goodID(s string) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// parseJSON reads an array of accounts, or one after the other.
func parseJSON(data []byte) ([]userRecord, error) {
	var records []userRecord
	dec := json.NewDecoder(bytes.NewReader(data))
	array := false
	if start := bytes.TrimSpace(data); len(start) > 0 && start[0] == '[' {
		array = true
		if _, err := dec.Token(); err != nil {
			return nil, errors.New("is no JSON")
		}
	}
	for n := 1; !array || dec.More(); n++ {
		r := userRecord{place: fmt.Sprint("account ", n)}
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) && !array {
			return records, nil
		}
		if err == nil {
			err = r.decode(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("account %d: %w", n, noValues(err))
		}
		records = append(records, r)
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("the list has no end")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the list")
	}
	return records, nil
}

func (r *userRecord) decode(raw json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		return err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return err
	}
	r.given = map[string]bool{}
	for name := range members {
		r.given[strings.ToLower(name)] = true
	}
	return nil
}

// noValues rids an error of json of what it quotes from the file.
func noValues(err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: must not be a JSON %s", t.Field, strings.SplitN(t.Value, " ", 2)[0])
	}
	if _, ok := errors.AsType[*time.ParseError](err); ok {
		return errors.New("a time must be like 2026-11-27T12:00:00Z")
	}
	return err
}

// The columns of a CSV file, in the order of an export. Only name must be there.
var userColumns = []string{
	"id", "name", "display", "email", "email_verified", "groups", "roles", "disabled", "must_change_password",
	"password", "password_since", "plain_password", "created",
}

// parseCSV reads a table whose first line names the columns. Groups and roles
// are divided by semicolons.
func parseCSV(data []byte) ([]userRecord, error) {
	in := csv.NewReader(bytes.NewReader(data))
	head, err := in.Read()
	if err != nil {
		return nil, errors.New("line 1: must name the columns, such as name,email,password")
	}
	head = slices.Clone(head)
	for i, column := range head {
		head[i] = strings.ToLower(strings.TrimSpace(column))
		if !slices.Contains(userColumns, head[i]) {
			return nil, fmt.Errorf("line 1: there is no column %q; there are %s", column, strings.Join(userColumns, ", "))
		}
		if slices.Contains(head[:i], head[i]) {
			return nil, fmt.Errorf("line 1: the column %q is there twice", column)
		}
	}
	if !slices.Contains(head, "name") {
		return nil, errors.New("line 1: must name the columns, name among them")
	}
	given := map[string]bool{}
	for _, column := range head {
		given[column] = true
	}
	var records []userRecord
	var errs []error
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			return records, errors.Join(errs...)
		}
		if err != nil {
			return nil, err // of csv: says the line, quotes nothing
		}
		line, _ := in.FieldPos(0)
		r := userRecord{place: fmt.Sprint("line ", line), given: given}
		for i, column := range head {
			if err := r.set(column, row[i]); err != nil {
				errs = append(errs, fmt.Errorf("line %d: %s: %w", line, column, err))
			}
		}
		records = append(records, r)
	}
}

// set sets what a column is for.
func (r *userRecord) set(column, value string) (err error) {
	yes := func(to *bool) {
		if value != "" {
			if *to, err = strconv.ParseBool(value); err != nil {
				err = errors.New("must be true or false")
			}
		}
	}
	when := func(to *time.Time) {
		if value != "" {
			if *to, err = time.Parse(time.RFC3339Nano, value); err != nil {
				err = errors.New("must be a time like 2026-11-27T12:00:00Z")
			}
		}
	}
	switch column {
	case "id":
		r.ID = value
	case "name":
		r.Name = value
	case "display":
		r.Display = value
	case "email":
		r.Email = value
	case "email_verified":
		yes(&r.EmailVerified)
	case "groups":
		r.Groups = strings.Split(value, ";")
	case "roles":
		r.Roles = strings.Split(value, ";")
	case "disabled":
		yes(&r.Disabled)
	case "must_change_password":
		yes(&r.MustChange)
	case "password":
		r.Password = value
	case "password_since":
		when(&r.PasswordSince)
	case "plain_password":
		r.Plain = value
	case "created":
		when(&r.Created)
	}
	return err
}

// get is what set sets.
func (r *userRecord) get(column string) string {
	yes := func(b bool) string {
		if !b {
			return ""
		}
		return "true"
	}
	when := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	switch column {
	case "id":
		return r.ID
	case "name":
		return r.Name
	case "display":
		return r.Display
	case "email":
		return r.Email
	case "email_verified":
		return yes(r.EmailVerified)
	case "groups":
		return strings.Join(r.Groups, ";")
	case "roles":
		return strings.Join(r.Roles, ";")
	case "disabled":
		return yes(r.Disabled)
	case "must_change_password":
		return yes(r.MustChange)
	case "password":
		return r.Password
	case "password_since":
		return when(r.PasswordSince)
	case "plain_password":
		return r.Plain
	}
	return when(r.Created)
}

// parseHtpasswd reads lines name:hash.
func parseHtpasswd(data []byte) ([]userRecord, error) {
	var records []userRecord
	var errs []error
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok || hash == "" {
			errs = append(errs, fmt.Errorf("line %d: must have the form name:hash", n))
			continue
		}
		records = append(records, userRecord{Name: name, Password: hash, place: fmt.Sprint("line ", n)})
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, err)
	}
	return records, errors.Join(errs...)
}

// writeUsers writes what parseUsers reads. An export has no passwords in clear.
func writeUsers(w io.Writer, format string, each func(func(userRecord) error) error) error {
	if format == formatJSON {
		n := 0
		err := each(func(r userRecord) error {
			b, err := json.Marshal(r)
			if err != nil {
				return err
			}
			sep := ",\n"
			if n++; n == 1 {
				sep = "[\n"
			}
			_, err = fmt.Fprintf(w, "%s%s", sep, b)
			return err
		})
		end := "\n]\n"
		if n == 0 {
			end = "[]\n"
		}
		_, werr := io.WriteString(w, end)
		return errors.Join(err, werr)
	}
	out := csv.NewWriter(w)
	columns := slices.DeleteFunc(slices.Clone(userColumns), func(c string) bool { return c == "plain_password" })
	if err := out.Write(columns); err != nil {
		return err
	}
	err := each(func(r userRecord) error {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = r.get(c)
			if (c == "groups" || c == "roles") && slices.ContainsFunc(append(slices.Clone(r.Groups), r.Roles...), func(s string) bool { return strings.Contains(s, ";") }) {
				return fmt.Errorf("%s: a group or role has a semicolon in its name, which CSV divides them by; use --format json", r.Name)
			}
		}
		return out.Write(row)
	})
	out.Flush()
	return errors.Join(err, out.Error())
}
