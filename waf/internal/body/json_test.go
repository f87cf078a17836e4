package body_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// flatten names the leaves of a document by gjson, which Coraza uses.
func flatten(v gjson.Result, path string) []message.Pair {
	var out []message.Pair
	n := 0
	v.ForEach(func(key, value gjson.Result) bool {
		name := path + "." + key.Str
		if key.Type != gjson.String {
			name = path + "." + strconv.Itoa(n)
			n++
		}
		switch value.Type {
		case gjson.JSON:
			out = append(out, flatten(value, name)...)
		case gjson.String:
			out = append(out, message.Pair{Name: name, Value: value.Str})
		case gjson.Null:
			out = append(out, message.Pair{Name: name})
		default:
			out = append(out, message.Pair{Name: name, Value: value.Raw})
		}
		return true
	})
	if n > 0 {
		out = append(out, message.Pair{Name: path, Value: strconv.Itoa(n)})
	}
	return out
}

// Names and values are those that gjson finds.
func FuzzFlatten(f *testing.F) {
	for _, s := range []string{
		`{"a":{"b":[1,"x",null,true]}}`, `"x"`, ` 1.5e3 `, "\tnull\n", `true`, `[]`, `{}`, `[ ]`, `{ }`, `[[],{},[[{"":[0]}]]]`, `{"a":1,"a":2}`, `{"":"","\"":"\\"}`,
		`{"a.b" : 1 , "a" : { "b" : 2 } }`, `[[[[1]]]]`, `"\u0041\n\"\\\/\b\f\r\t"`, `["\ud83d\ude00","\ud83d","\ude00","\ud83dx","\ud83d\u0041","\ud83d\\","\u00e9"]`,
		`[-1,false,true,null,0]`, "[\"\x80\xff\",\"\x7f\"]", `{"k\u0000":"]"}`, `[{"a":"}"},{"b":"\"]"}]`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := read(t, "application/json", s)
		if err != nil {
			return
		}
		want := flatten(gjson.Parse(s), "json")
		if !slices.Equal(b.Args, want) {
			t.Fatalf("%s\nis read as %q\ngjson reads %q", s, b.Args, want)
		}
	})
}

func TestJSONBounds(t *testing.T) {
	nest := func(n int) string { return strings.Repeat(`{"":`, n) + "0" + strings.Repeat("}", n) }
	for _, c := range []struct {
		name, text string
		want       error // nil: it is accepted; errOther: some error
	}{
		{"deep", nest(512), nil},
		{"too deep", nest(513), errOther},
		{"too deep in brackets that are closed", "[" + strings.Repeat("[],", 600) + nest(512) + "]", errOther},
		{"many brackets in a string", `"` + strings.Repeat("[", 600) + `"`, nil},
		{"as many as are inspected", "[" + strings.Repeat("0,", 999) + "0]", nil},
		{"too many", "[" + strings.Repeat("0,", 1000) + "0]", body.ErrTooMany},
		{"too many arrays", "[" + strings.Repeat(`[{"a":[[[[0]]]]}],`, 200) + "0]", body.ErrTooMany},
		{"long paths", `{"` + strings.Repeat("a", 40000) + `":[` + strings.Repeat("0,", 900) + "0]}", errOther},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(t, "application/json", c.text)
			if (err == nil) != (c.want == nil) || c.want != nil && c.want != errOther && !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

var errOther = errors.New("any other")
