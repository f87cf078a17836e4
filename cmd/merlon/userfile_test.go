package main

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// What is read from any file can be written, and is then read as the same.
func FuzzParseUsers(f *testing.F) {
	f.Add("json", `[{"name":"ann","groups":["a","b"],"created":"2026-11-27T12:00:00Z"},{"name":"bob","disabled":true}]`)
	f.Add("json", `{"name":"ann"}{"name":"bob@example.com","email":"BOB@example.com","email_verified":true}`)
	f.Add("csv", "name,groups,disabled,password_since\nann,a;b,true,2026-11-27T12:00:00.123Z\n\"b\"\"b\",,,\n")
	f.Add("htpasswd", "# users\nann:$2y$10$abc\r\nbob:{SHA}x\n")
	f.Fuzz(func(t *testing.T, format, text string) {
		records, err := parseUsers(format, []byte(text))
		if err != nil {
			if len(text) > 40 && strings.Contains(err.Error(), text) {
				t.Errorf("the error has the file in it: %v", err)
			}
			return
		}
		for _, as := range []string{formatJSON, formatCSV} {
			var out bytes.Buffer
			err := writeUsers(&out, as, func(write func(userRecord) error) error {
				for _, r := range records {
					r.Plain = ""
					if err := write(r); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				if as == formatCSV && strings.Contains(err.Error(), "semicolon") {
					continue
				}
				t.Fatalf("%s: %v", as, err)
			}
			again, err := parseUsers(as, out.Bytes())
			if err != nil {
				t.Fatalf("%s: %v\n%s", as, err, &out)
			}
			if len(again) != len(records) {
				t.Fatalf("%s: %d accounts became %d:\n%s", as, len(records), len(again), &out)
			}
			for i, r := range records {
				if want, got := plainOf(r, as), plainOf(again[i], as); !reflect.DeepEqual(got, want) {
					t.Fatalf("%s:\n got %+v\nwant %+v", as, got, want)
				}
			}
		}
	})
}

// plainOf is a record without what belongs to its file, and as text files can
// keep it: neither keeps what is no UTF-8, and CSV has one kind of line end.
func plainOf(r userRecord, format string) userRecord {
	r.place, r.given, r.Plain = "", nil, ""
	r.Created, r.PasswordSince = r.Created.UTC(), r.PasswordSince.UTC()
	text := func(s string) string {
		s = strings.ToValidUTF8(s, "\uFFFD")
		if format == formatCSV {
			s = strings.ReplaceAll(s, "\r\n", "\n")
		}
		return s
	}
	r.Display, r.Password = text(r.Display), text(r.Password)
	return r
}

func TestParseUsersTellsEveryMistake(t *testing.T) {
	for _, c := range []struct{ format, text, want string }{
		{"csv", "", "line 1: must name the columns, such as name,email,password"},
		{"csv", "mail,name", `line 1: there is no column "mail"; there are id, name,`},
		{"csv", "name,NAME", `line 1: the column "NAME" is there twice`},
		{"csv", "email", "line 1: must name the columns, name among them"},
		{"csv", "name,disabled\na,x\nb,y", "line 2: disabled: must be true or false\nline 3: disabled: must be true or false"},
		{"csv", "name,created\na,today", "line 2: created: must be a time like"},
		{"csv", "name\nann\nANN\nb b", "line 3: \"ann\" is in line 2, too\nline 4: name \"b b\": must be letters"},
		{"csv", "name,password,plain_password\na,hash,hunter2", "line 2: has a hash and a password in clear; leave one out"},
		{"csv", "name,id\na,../x", "line 2: id: must be 1 to 64 letters, digits, - and _"},
		{"csv", "name,email\na,b", "line 2: email: must be an address"},
		{"json", `[{"name":"a"}`, "the list has no end"},
		{"json", `[{"name":"a"}] x`, "there is something after the list"},
		{"json", `[{"name":7}]`, "account 1: name: must not be a JSON number"},
		{"json", `{"name":"a","roles":"hunter2"}`, "account 1: roles: must not be a JSON string"},
		{"json", `{"name":"a","created":"hunter2"}`, "account 1: a time must be like"},
		{"htpasswd", "ann\nbob:", "line 1: must have the form name:hash\nline 2: must have the form name:hash"},
	} {
		_, err := parseUsers(c.format, []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s %q: %v", c.format, c.text, err)
		}
	}
}

func TestFormatOf(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"x.JSON", "", "json"}, {"x.csv", "{", "csv"}, {"/etc/.htpasswd", "", "htpasswd"},
		{"-", " [{}]", "json"}, {"-", "email,name\n", "csv"}, {"-", "ann:$2y$10$\n", "htpasswd"},
	} {
		if got := formatOf(c.name, []byte(c.text)); got != c.want {
			t.Errorf("%s %q: %s", c.name, c.text, got)
		}
	}
}

func TestApply(t *testing.T) {
	for _, c := range []struct {
		have, flags string
		want        string
	}{
		{"a b", "+c -a", "b c"}, {"a b", "+a", "a b"}, {"a b", "c", "c"}, {"a b", "", ""}, {"a", "-x", "a"}, {"a", "-a +b -b", ""},
	} {
		got, err := apply("--group", strings.Fields(c.have), strings.Fields(c.flags))
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s with %s: %v, %v", c.have, c.flags, got, err)
		}
	}
}
