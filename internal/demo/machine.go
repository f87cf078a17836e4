package demo

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const hostname = "shop-web-1"

// A machine is the pretend server that injected commands run on: a table of
// files and a handful of commands that answer as the real ones would. Nothing
// here reaches the machine that the demo runs on.
type machine struct {
	mu    sync.Mutex
	files map[string]string
}

// disk is what is on a new machine.
var disk = map[string]string{
	"/bin/sh":                         "ELF\n",
	"/etc/hostname":                   hostname + "\n",
	"/etc/passwd":                     "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nkeeper:x:1000:1000:The shopkeeper:/home/keeper:/bin/bash\n",
	"/etc/shadow":                     "root:*:20000:0:99999:7:::\n",
	"/home/keeper/notes.txt":          "Ring Nora about the blue glaze.\n",
	"/srv/shop/app.js":                "app.post('/api/tools/run', (req, res) => res.json(eval(req.body.command)))\n",
	"/srv/shop/shop.env":              "DATABASE=postgres://shop:kettle-61@10.0.0.7:5432/shop\n",
	"/srv/shop/downloads/care.txt":    "Wash stoneware warm, never shock it with cold. Oil the board twice a year.\n",
	"/srv/shop/downloads/returns.txt": "Thirty days, no questions, we pay the post.\n",
	"/var/backups/customers.csv":      "name,address\nAnn Fletcher,14 Rope Walk\n",
	"/var/log/shop.log":               "09:12 opened\n",
}

func newMachine() *machine { return &machine{files: maps.Clone(disk)} }

func (m *machine) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.files)
}

func (m *machine) read(name string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, ok := m.files[name]
	return text, ok
}

// reports are what the tools' menu offers.
var reports = map[string]string{
	"orders.today()":    "3 orders, €74.50. Best seller: O'Brien's mug.",
	"reviews.waiting()": "2 reviews wait for an answer.",
	"stock.low()":       "bread-board: 7 left\nharbour-kettle: 9 left",
}

func reportNames() []string { return slices.Sorted(maps.Keys(reports)) }

// nodeExec is the way out of eval that checklists show.
var nodeExec = regexp.MustCompile("^\\s*require\\(\\s*['\"`](?:node:)?child_process['\"`]\\s*\\)\\s*\\.\\s*(?:exec|execSync)\\(\\s*(?:'([^']*)'|\"([^\"]*)\"|`([^`]*)`)\\s*\\)(?:\\s*\\.\\s*toString\\(\\s*\\))?\\s*;?\\s*$")

// eval answers as eval in a JavaScript server would.
func (m *machine) eval(code string) string {
	if report, ok := reports[strings.TrimSpace(code)]; ok {
		return report
	}
	if g := nodeExec.FindStringSubmatch(code); g != nil {
		return m.sh(g[1] + g[2] + g[3])
	}
	word := strings.FieldsFunc(code, func(r rune) bool { return !isWord(r) })
	if len(word) == 0 {
		return "undefined"
	}
	return fmt.Sprintf("ReferenceError: %s is not defined", word[0])
}

func isWord(r rune) bool {
	return r == '_' || r == '$' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}

// separators end a command on a line.
var separators = regexp.MustCompile(`&&|\|\||[;|&\n]`)

// maxCommands bounds the commands on one line, and maxOutput their output.
const (
	maxCommands = 20
	maxOutput   = 16 << 10
)

// sh runs a line of commands on the pretend machine.
func (m *machine) sh(line string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out strings.Builder
	commands := separators.Split(line, maxCommands+1)
	for _, command := range commands[:min(len(commands), maxCommands)] {
		if args := strings.Fields(command); len(args) > 0 && out.Len() < maxOutput {
			out.WriteString(m.command(args[0], unquote(args[1:])))
		}
	}
	return out.String()
}

func unquote(args []string) []string {
	for i, a := range args {
		args[i] = strings.Trim(a, `'"`)
	}
	return args
}

func (m *machine) command(name string, args []string) string {
	var words []string // arguments that are no options
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			words = append(words, a)
		}
	}
	switch path.Base(name) {
	case "id":
		return "uid=33(www-data) gid=33(www-data) groups=33(www-data)\n"
	case "whoami":
		return "www-data\n"
	case "hostname":
		return hostname + "\n"
	case "uname":
		return "Linux " + hostname + " 6.1.0 x86_64 GNU/Linux\n"
	case "pwd":
		return "/srv/shop\n"
	case "echo":
		return strings.Join(args, " ") + "\n"
	case "env":
		return m.files["/srv/shop/shop.env"]
	case "ping":
		return ping(words)
	case "cat":
		return m.each(words, m.cat)
	case "ls":
		if len(words) == 0 {
			words = []string{"."}
		}
		return m.each(words, m.ls)
	case "rm":
		return m.each(words, m.rm)
	}
	return fmt.Sprintf("sh: 1: %s: not found\n", name)
}

func ping(hosts []string) string {
	host := "localhost"
	for _, h := range hosts {
		host = h // the count of -c comes first
	}
	return fmt.Sprintf("PING %s: 56 data bytes\n64 bytes from %s: icmp_seq=1 ttl=63 time=0.4 ms\n", host, host)
}

func (m *machine) each(names []string, do func(abs string) (string, error)) string {
	var out strings.Builder
	for _, name := range names {
		abs := path.Clean(name)
		if !path.IsAbs(name) {
			abs = path.Join("/srv/shop", name)
		}
		text, err := do(abs)
		if err != nil {
			text = name + ": No such file or directory\n"
		}
		out.WriteString(text)
	}
	return out.String()
}

var errNoFile = errors.New("no such file")

func (m *machine) cat(abs string) (string, error) {
	text, ok := m.files[abs]
	if !ok {
		return "", errNoFile
	}
	return text, nil
}

// under lists the files at or below a path.
func (m *machine) under(abs string) []string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		if name == abs || strings.HasPrefix(name, strings.TrimSuffix(abs, "/")+"/") {
			found = append(found, name)
		}
	}
	return found
}

func (m *machine) ls(abs string) (string, error) {
	var names []string
	for _, name := range m.under(abs) {
		rest := strings.TrimPrefix(strings.TrimPrefix(name, abs), "/")
		first, _, _ := strings.Cut(rest, "/")
		names = append(names, first)
	}
	if len(names) == 0 && abs != "/" {
		return "", errNoFile
	}
	return strings.Join(append(slices.Compact(names), ""), "\n"), nil
}

func (m *machine) rm(abs string) (string, error) {
	gone := m.under(abs)
	if len(gone) == 0 {
		return "", errNoFile
	}
	for _, name := range gone {
		delete(m.files, name)
	}
	return fmt.Sprintf("removed %d files, %d left\n", len(gone), len(m.files)), nil
}
