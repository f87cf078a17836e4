package record_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/record"
)

// studio is a recorder with the key to what it records.
type studio struct {
	*record.Recorder
	dir string
	ids []record.Identity
}

func open(t testing.TB, c record.Config) *studio {
	t.Helper()
	dir := t.TempDir()
	keyFile := filepath.Join(dir, "key")
	to, err := record.MakeKey(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := record.ReadIdentity(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	c.Dir, c.Recipient = filepath.Join(dir, "traffic"), to
	r, err := record.Open(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return &studio{r, c.Dir, ids}
}

// send records a request as the gateway does.
func (s *studio) send(t testing.TB, hr *http.Request, o record.Outcome) {
	t.Helper()
	tape := s.Begin(hr)
	if _, err := io.Copy(io.Discard, tape.Body(hr.Body)); err != nil {
		t.Fatal(err)
	}
	tape.End("ID", o)
}

// read stops recording and returns what was recorded.
func (s *studio) read(t testing.TB) (all []record.Entry) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for e, err := range record.Read(s.dir, time.Time{}, s.ids...) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func request(method, target, contentType, body string) *http.Request {
	hr := httptest.NewRequest(method, target, strings.NewReader(body))
	hr.Header.Set("User-Agent", "test/1.0")
	if contentType != "" {
		hr.Header.Set("Content-Type", contentType)
	}
	return hr
}

func TestWhatIsRecordedIsReadAgain(t *testing.T) {
	s := open(t, record.Config{})
	hr := request("POST", "https://shop.example.com/orders?page=2", "application/json", `{"item": "tea", "count": 3}`)
	want := record.Outcome{Status: 403, Guard: "waf", Reason: "attack", Findings: []record.Finding{{"942100", `query parameter "page"`}}}
	s.send(t, hr, want)
	all := s.read(t)
	if len(all) != 1 {
		t.Fatalf("%d entries", len(all))
	}
	e := all[0]
	got, err := e.Request()
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(got.Body)
	if got.Method != "POST" || got.Host != "shop.example.com" || got.URL.RawQuery != "page=2" || got.RequestURI != hr.RequestURI ||
		got.Proto != "HTTP/1.1" || got.TLS == nil || got.RemoteAddr != hr.RemoteAddr || got.ContentLength != hr.ContentLength ||
		got.Header.Get("User-Agent") != "test/1.0" || string(body) != `{"item": "tea", "count": 3}` {
		t.Errorf("read again: %+v, body %q", got, body)
	}
	if e.ID != "ID" || !e.Whole || e.Outcome.Guard != want.Guard || e.Outcome.Reason != want.Reason || e.Outcome.Hidden ||
		!slices.Equal(e.Outcome.Findings, want.Findings) {
		t.Errorf("the outcome: %+v", e)
	}
	if st := s.Stats(); st != (record.Stats{Written: 1}) {
		t.Errorf("stats: %+v", st)
	}
}

func TestNothingOnTheDiskCanBeReadWithoutTheKey(t *testing.T) {
	s := open(t, record.Config{})
	s.send(t, request("GET", "/a-path-to-look-for", "", ""), record.Outcome{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(s.dir, "*.age"))
	if len(files) != 1 {
		t.Fatalf("segments: %v", files)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("a-path")) {
		t.Error("the path is on the disk in clear")
	}
	if info, _ := os.Stat(files[0]); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	other := open(t, record.Config{})
	for _, err := range record.Read(s.dir, time.Time{}, other.ids...) {
		if err == nil || !strings.Contains(err.Error(), "another key") {
			t.Errorf("with another key: %v", err)
		}
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range record.Read(s.dir, time.Time{}, s.ids...) {
		if err == nil || errors.Is(err, record.ErrUnfinished) {
			t.Errorf("with a changed byte: %v", err)
		}
	}
}

func TestABodyIsRecordedWholeOrNotAtAll(t *testing.T) {
	long := strings.Repeat("a", 2000)
	for name, c := range map[string]struct {
		contentType, body string
		coding            string
		whole             bool
	}{
		"form":               {"application/x-www-form-urlencoded", "q=tea&n=3", "", true},
		"none":               {"", "", "", true},
		"at the bound":       {"application/x-www-form-urlencoded", long[:1024], "", true},
		"beyond the bound":   {"application/x-www-form-urlencoded", long[:1025], "", false},
		"JSON":               {"application/problem+json; charset=utf-8", `[1, {"a": null}]`, "", true},
		"broken JSON":        {"application/json", `{"password": "x`, "", false},
		"two JSON values":    {"application/json", `{} {}`, "", false},
		"text":               {"text/plain", "the password is x", "", false},
		"no type":            {"", "a=1", "", false},
		"compressed":         {"application/json", `{}`, "gzip", false},
		"another charset":    {"application/json; charset=utf-16", `{}`, "", false},
		"XML":                {"application/xml", "<a b='1'>c</a>", "", true},
		"XML, with a type":   {"application/xml", "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", "", false},
		"XML, no end":        {"application/xml", "<a><b></a>", "", false},
		"XML, another text":  {"application/xml", "<?xml version='1.0' encoding='utf-16'?><a/>", "", false},
		"XML, a comment":     {"application/xml", "<a><!-- password=x --></a>", "", false},
		"XML, undeclared":    {"application/xml", "<a>&e;</a>", "", false},
		"multipart":          {"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--\r\n", "", true},
		"multipart, no end":  {"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B\r\n", "", false},
		"multipart, LF":      {"multipart/form-data; boundary=B", "--B\nContent-Disposition: form-data; name=\"a\"\n\n1\n--B--\n", "", false},
		"multipart, coded":   {"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ==\r\n--B--\r\n", "", false},
		"multipart, nested":  {"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n1\r\n--B--\r\n", "", false},
		"multipart, epilog":  {"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--\r\nmore", "", false},
		"multipart, no name": {"multipart/form-data; boundary=B", "--B\r\nX: y\r\n\r\n1\r\n--B--\r\n", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, record.Config{Body: merlon.KiB})
			hr := request("POST", "/", c.contentType, c.body)
			if c.coding != "" {
				hr.Header.Set("Content-Encoding", c.coding)
			}
			s.send(t, hr, record.Outcome{})
			e := s.read(t)[0]
			if e.Whole != c.whole || c.whole && string(e.Body) != c.body || !c.whole && e.Body != nil {
				t.Errorf("whole %t, body %q", e.Whole, e.Body)
			}
			if e.Length != int64(len(c.body)) {
				t.Errorf("declared length %d", e.Length)
			}
		})
	}
}

func TestABodyThatWasNotReadIsNotWhole(t *testing.T) {
	s := open(t, record.Config{})
	hr := request("POST", "/", "application/x-www-form-urlencoded", "q=tea&n=3")
	tape := s.Begin(hr)
	if _, err := tape.Body(hr.Body).Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	tape.End("ID", record.Outcome{})
	if e := s.read(t)[0]; e.Whole || e.Body != nil {
		t.Errorf("%+v", e)
	}
}

func TestSpaceIsBoundedAndTheOldestGoes(t *testing.T) {
	s := open(t, record.Config{Size: 8 * merlon.MiB, Body: merlon.MiB})
	body := "q=" + strings.Repeat("tea ", 100_000)
	for i := range 40 {
		hr := request("POST", "/?n="+string(rune('A'+i)), "application/x-www-form-urlencoded", body)
		s.send(t, hr, record.Outcome{})
		for s.Stats().Written <= uint64(i) {
			if s.Stats().Lost > 0 {
				t.Fatalf("lost after %d", i)
			}
			time.Sleep(time.Millisecond)
		}
	}
	all := s.read(t)
	sum := int64(0)
	files, _ := filepath.Glob(filepath.Join(s.dir, "*.age"))
	for _, f := range files {
		info, _ := os.Stat(f)
		sum += info.Size()
	}
	if sum > int64(8*merlon.MiB) || sum < int64(6*merlon.MiB) {
		t.Errorf("%d bytes on the disk", sum)
	}
	if last := all[len(all)-1]; len(all) < 12 || len(all) >= 40 || !strings.HasSuffix(last.Target, string(rune('A'+39))) {
		t.Errorf("%d entries, the last %s", len(all), last.Target)
	}
}

func TestOldTrafficIsDropped(t *testing.T) {
	s := open(t, record.Config{})
	old := filepath.Join(s.dir, "20200101T000000.000Z-AAAAAAAA.age")
	if err := os.WriteFile(old, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-169 * time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	s.send(t, request("GET", "/", "", ""), record.Outcome{})
	if n := len(s.read(t)); n != 1 {
		t.Errorf("%d entries", n)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old segment: %v", err)
	}
}

// What is still being written can be read as far as it is on the disk.
func TestAnUnfinishedSegment(t *testing.T) {
	s := open(t, record.Config{})
	for range 200 {
		s.send(t, request("POST", "/", "application/x-www-form-urlencoded", "q="+strings.Repeat("a", 1000)), record.Outcome{})
	}
	for s.Stats().Written < 200 {
		time.Sleep(time.Millisecond)
	}
	n, unfinished := 0, false
	for _, err := range record.Read(s.dir, time.Time{}, s.ids...) {
		switch {
		case errors.Is(err, record.ErrUnfinished):
			unfinished = true
		case err != nil:
			t.Fatal(err)
		default:
			n++
		}
	}
	if !unfinished || n < 100 || n >= 200 {
		t.Errorf("%d read, unfinished %t", n, unfinished)
	}
	if all := s.read(t); len(all) != 200 {
		t.Errorf("%d when it was finished", len(all))
	}
}

func TestSinceLeavesOutWhatIsOlder(t *testing.T) {
	s := open(t, record.Config{})
	s.send(t, request("GET", "/", "", ""), record.Outcome{})
	if n := len(s.read(t)); n != 1 {
		t.Fatalf("%d entries", n)
	}
	for e, err := range record.Read(s.dir, time.Now(), s.ids...) {
		t.Errorf("%+v %v", e, err)
	}
}

func TestNoRecorderRecordsNothing(t *testing.T) {
	r, err := record.Open(record.Config{}, nil)
	if r != nil || err != nil {
		t.Fatalf("%v, %v", r, err)
	}
	tape := r.Begin(request("GET", "/", "", ""))
	if body := tape.Body(http.NoBody); body != http.NoBody {
		t.Error("the body was wrapped")
	}
	tape.End("ID", record.Outcome{})
	if err := r.Close(); err != nil || r.Stats() != (record.Stats{}) {
		t.Error(err)
	}
}

func TestASlowDiskLosesAndCounts(t *testing.T) {
	s := open(t, record.Config{Body: merlon.MiB})
	// Bodies that are still arriving take the memory that there is.
	var tapes []*record.Tape
	for range 40 {
		hr := request("POST", "/", "application/x-www-form-urlencoded", strings.Repeat("a", 1<<20))
		tape := s.Begin(hr)
		_, _ = io.Copy(io.Discard, tape.Body(hr.Body))
		tapes = append(tapes, tape)
	}
	for _, tape := range tapes {
		tape.End("ID", record.Outcome{})
	}
	whole := 0
	for _, e := range s.read(t) {
		if e.Whole {
			whole++
		}
	}
	if whole == 0 || whole > 32 {
		t.Errorf("%d bodies of 1 MiB were held", whole)
	}
}

func TestMistakes(t *testing.T) {
	good := "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	for name, c := range map[string]struct {
		config record.Config
		want   string
	}{
		"nothing":        {record.Config{}, ""},
		"all":            {record.Config{Dir: "d", Recipient: good, Size: 8 * merlon.MiB, Keep: time.Hour, Body: merlon.KiB, Share: 0.5}, ""},
		"no key":         {record.Config{Dir: "d"}, "recipient: must be set"},
		"no folder":      {record.Config{Recipient: good}, "dir: must be set"},
		"no key at all":  {record.Config{Dir: "d", Recipient: "age1x"}, `recipient "age1x": must be a public key`},
		"the secret key": {record.Config{Dir: "d", Recipient: "AGE-SECRET-KEY-1X"}, "recipient: must be the public key"},
		"too small":      {record.Config{Dir: "d", Recipient: good, Size: merlon.MiB}, `size "1MiB": must be from 8MiB`},
		"too short":      {record.Config{Dir: "d", Recipient: good, Keep: time.Minute}, `keep "1m0s": must be at least 1h`},
		"too long":       {record.Config{Dir: "d", Recipient: good, Body: 2 * merlon.MiB}, `body "2MiB": must be from`},
		"too many":       {record.Config{Dir: "d", Recipient: good, Share: 1.5}, `share "1.5": must be more`},
		"less than none": {record.Config{Dir: "d", Recipient: good, Share: -0.5}, `share "-0.5": must be more`},
	} {
		err := record.Check(c.config)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
