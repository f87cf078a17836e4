package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// machineOf returns the pretend machine of whoever is logged in, and a new one
// for everybody else, so that nobody wipes another's.
func (s *Shop) machineOf(r *http.Request) *machine {
	if ses := s.session(r); ses != nil {
		return ses.machine
	}
	return newMachine()
}

// A toolsPage is what the tools page shows.
type toolsPage struct {
	Machine string // its host name
	Files   int    // how many are left on it
	Ran     string
	Output  string
	Menu    []string
}

func (s *Shop) tools(w http.ResponseWriter, r *http.Request) error {
	return s.toolsAnswer(w, r, "", "")
}

func (s *Shop) toolsAnswer(w http.ResponseWriter, r *http.Request, ran, output string) error {
	v := s.view(r, "Shop tools")
	m := s.machineOf(r)
	v.Data = toolsPage{Machine: hostname, Files: m.count(), Ran: ran, Output: output, Menu: reportNames()}
	return s.render(w, http.StatusOK, "tools", v)
}

func (s *Shop) runForm(w http.ResponseWriter, r *http.Request) error {
	command := r.PostFormValue("command")
	return s.toolsAnswer(w, r, command, s.machineOf(r).eval(command))
}

// runAPI is a HOLE (deliberate): body.command is evaluated as code. Here the
// code is that of a pretend machine; see machine.
func (s *Shop) runAPI(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Command string `json:"command"`
	}
	if err := readJSON(r, &body); err != nil {
		return err
	}
	m := s.machineOf(r)
	out := m.eval(body.Command)
	return writeJSON(w, map[string]any{"output": out, "files_left": m.count()})
}

// ping is a HOLE (deliberate): the host becomes part of a command line.
func (s *Shop) ping(w http.ResponseWriter, r *http.Request) error {
	line := "ping -c 1 " + r.PostFormValue("host")
	return s.toolsAnswer(w, r, line, s.machineOf(r).sh(line))
}

func (s *Shop) resetForm(w http.ResponseWriter, r *http.Request) error {
	if err := s.Reset(r.Context()); err != nil {
		return err
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// readJSON reads a program's body, which may also be a form.
func readJSON(r *http.Request, v any) error {
	if ct, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); ct == "application/json" {
		return json.NewDecoder(r.Body).Decode(v)
	}
	if err := r.ParseForm(); err != nil {
		return err
	}
	fields := map[string]string{}
	for name := range r.PostForm {
		fields[name] = r.PostFormValue(name)
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// An imported picture is what fetching an address gave.
type imported struct {
	URL, Status, Type, Text string
	Picture                 string // where to show it from; empty if it is none
}

// get is a HOLE (deliberate): it fetches any address that it is given, those
// of the shop's own network and of its cloud's metadata service included. The
// network is a pretend one; see pretendNet.
func (s *Shop) get(r *http.Request, address string) (res imported, body []byte, err error) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, address, nil)
	if err != nil {
		return res, nil, err
	}
	answer, err := s.fetch.Do(req)
	if err != nil {
		return res, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, maxForm))
	res = imported{URL: address, Status: answer.Status, Type: answer.Header.Get("Content-Type"), Text: string(body)}
	if strings.HasPrefix(res.Type, "image/") {
		res.Picture = "/import/picture?url=" + url.QueryEscape(address)
	}
	return res, body, err
}

func (s *Shop) importForm(w http.ResponseWriter, r *http.Request) error {
	v := s.view(r, "Import a picture")
	address := r.URL.Query().Get("url")
	v.Data = imported{URL: address}
	if address != "" {
		res, _, err := s.get(r, address)
		if err != nil {
			v.Problem = err.Error()
		} else {
			v.Data = res
		}
	}
	return s.render(w, http.StatusOK, "import", v)
}

func (s *Shop) importPicture(w http.ResponseWriter, r *http.Request) error {
	res, body, err := s.get(r, r.URL.Query().Get("url"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", res.Type)
	_, _ = w.Write(body) // the client may be gone; there is nobody left to tell
	return nil
}

func (s *Shop) importAPI(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		URL string `json:"url"`
	}
	if err := readJSON(r, &body); err != nil {
		return err
	}
	res, _, err := s.get(r, body.URL)
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = fmt.Fprintf(w, "{\"error\":%q}\n", err.Error())
		return nil
	}
	return writeJSON(w, map[string]string{"status": res.Status, "type": res.Type, "text": res.Text})
}

// downloads is the folder that download serves, on the pretend disk.
const downloads = "/srv/shop/downloads"

// download is a HOLE (deliberate): ".." leads out of the folder.
func (s *Shop) download(w http.ResponseWriter, r *http.Request) error {
	name := path.Join(downloads, r.URL.Query().Get("file"))
	text, ok := s.machineOf(r).read(name)
	if !ok {
		return tracedError(fmt.Errorf("open %s: no such file or directory", name), "(none)")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	return nil
}
