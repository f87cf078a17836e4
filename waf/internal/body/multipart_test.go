package body_test

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

const good = "--b0undary\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b0undary--\r\n"

// push reads a form that comes in pieces, from memory that is used again.
func push(text []byte, size int) (message.Body, error) {
	b := message.Body{Kind: message.Multipart}
	r := body.NewMultipart("b0undary", 1<<20, 1000)
	piece := make([]byte, size)
	for len(text) > 0 {
		n := copy(piece, text)
		if err := r.Feed(piece[:n]); err != nil {
			return b, err
		}
		text = text[n:]
	}
	if err := r.Finish(); err != nil {
		return b, err
	}
	r.Take(&b)
	return b, nil
}

// What is accepted, mime/multipart reads in the same way; it does not matter
// in what pieces a form comes.
func FuzzMultipart(f *testing.F) {
	f.Add([]byte(good), uint16(7))
	f.Add([]byte("--b0undary\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\\.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--b0\r\n"+good), uint16(1))
	f.Add([]byte("\r\n"+good+"\r\n"), uint16(3))
	f.Add([]byte(strings.ReplaceAll(good, "\r\n", "\n")), uint16(100))
	f.Add([]byte("--b0undary--"), uint16(100))
	f.Add([]byte(strings.TrimSuffix(strings.Replace(good, "x", strings.Repeat("long ", 20), 1), "--b0undary--\r\n")+good), uint16(0))
	f.Fuzz(func(t *testing.T, text []byte, size uint16) {
		got, err := read(t, "multipart/form-data; boundary=b0undary", string(text))
		again, err2 := push(text, int(size)+1)
		if (err == nil) != (err2 == nil) || err == nil && fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", again) {
			t.Fatalf("read as a whole: %+v, %v; in pieces: %+v, %v", got, err, again, err2)
		}
		if err != nil {
			return
		}
		var names, values []string
		for _, p := range got.Parts {
			names = append(names, fmt.Sprintf("%q %d", p.Name, p.Size))
			if len(p.FileNames) > 0 != p.File {
				t.Fatalf("a file without a name, or a name without a file: %+v", p)
			}
		}
		for _, a := range got.Args {
			values = append(values, a.Name+"="+a.Value)
		}
		wantNames, wantValues := readByLibrary(t, text)
		if !slices.Equal(names, wantNames) || !slices.Equal(values, wantValues) {
			t.Fatalf("read as %q %q, mime/multipart reads %q %q", names, values, wantNames, wantValues)
		}
	})
}

func readByLibrary(t *testing.T, text []byte) (names, values []string) {
	mr := multipart.NewReader(bytes.NewReader(text), "b0undary")
	for {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return names, values
		}
		if err != nil {
			t.Fatalf("accepted, but mime/multipart says: %v", err)
		}
		content, err := io.ReadAll(p)
		if err != nil {
			t.Fatalf("accepted, but mime/multipart says: %v", err)
		}
		names = append(names, fmt.Sprintf("%q %d", p.FormName(), len(content)))
		if !strings.Contains(strings.ToLower(p.Header.Get("Content-Disposition")), "filename") {
			values = append(values, p.FormName()+"="+string(content))
		}
	}
}

// A name may not come twice in a part's header, nor in its disposition, however
// many others there are.
func TestRepeatedNames(t *testing.T) {
	for n := range 20 {
		var header, params string
		for i := range n {
			header += fmt.Sprintf("X-%d: 1\r\n", i)
			params += fmt.Sprintf("; x%d=1", i)
		}
		for _, c := range []struct {
			header, params string
			ok             bool
		}{
			{header, params, true},
			{header + "X-20: 1\r\nX-21: 1\r\nX-20: 2\r\n", params, false},
			{"X-20: 1\r\n" + header + "x-20: 2\r\n", params, false},
			{header, params + "; name=b", false},
			{header, "; x20=1" + params + "; X20=2", false},
		} {
			text := strings.Replace(good, "Content-D", c.header+"Content-D", 1)
			text = strings.Replace(text, `"a"`, `"a"`+c.params, 1)
			if _, err := read(t, "multipart/form-data; boundary=b0undary", text); (err == nil) != c.ok {
				t.Errorf("%q: error %v", text, err)
			}
		}
	}
}
