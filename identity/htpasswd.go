package identity

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon/identity/password"
)

// An htpasswd is a file of names and hashes, read again when it changes.
type htpasswd struct {
	path string

	mu     sync.Mutex
	users  map[string]string
	stamp  fileStamp
	looked time.Time
}

// A fileStamp changes when a file does.
type fileStamp struct {
	mod  time.Time
	size int64
}

const maxHtpasswd = 16 << 20

func openHtpasswd(path string) (*htpasswd, error) {
	f := &htpasswd{path: path}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

// lookup returns the hash of a user, or nothing. changed says why a changed
// file cannot be used; what was read before holds on.
func (f *htpasswd) lookup(user string, now time.Time) (hash string, changed error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := now.Sub(f.looked); d >= time.Second || d < 0 {
		f.looked = now
		if info, err := os.Stat(f.path); err != nil {
			changed = err
		} else if (fileStamp{info.ModTime(), info.Size()}) != f.stamp {
			changed = f.read()
		}
	}
	return f.users[user], changed
}

func (f *htpasswd) read() error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxHtpasswd+1))
	if err != nil {
		return err
	}
	// Also of a file that cannot be used: it is told once, not each second.
	f.stamp = fileStamp{info.ModTime(), info.Size()}
	users, err := parseHtpasswd(text)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.users = users
	return nil
}

// parseHtpasswd reads the lines of a file. Every line that cannot be used is
// told, without what stands in it.
func parseHtpasswd(text []byte) (map[string]string, error) {
	if len(text) > maxHtpasswd {
		return nil, errors.New("is larger than 16 MiB")
	}
	users := map[string]string{}
	var errs []error
	sc := bufio.NewScanner(bytes.NewReader(text))
	sc.Buffer(nil, 64<<10)
	n := 0
	for sc.Scan() {
		n++
		line := strings.TrimRight(sc.Text(), " \t\r")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		bad := ""
		switch {
		case !ok || user == "":
			bad = "is not name:hash"
		case users[user] != "":
			bad = "names a user a second time"
		default:
			bad = badHash(hash)
		}
		if bad != "" {
			errs = append(errs, fmt.Errorf("line %d: %s", n, bad))
			continue
		}
		users[user] = hash
	}
	if err := sc.Err(); err != nil {
		errs = append(errs, fmt.Errorf("line %d: %w", n+1, err))
	}
	return users, errors.Join(errs...)
}

// badHash says why a hash cannot be used: MD5, SHA-1 and crypt(3) can be
// guessed by the billion.
func badHash(hash string) string {
	switch {
	case strings.HasPrefix(hash, "$apr1$"), strings.HasPrefix(hash, "$1$"):
		return "has an MD5 hash; make it bcrypt (htpasswd -B)"
	case strings.HasPrefix(hash, "{"):
		return "has a SHA-1 hash; make it bcrypt (htpasswd -B)"
	case strings.HasPrefix(hash, "$5$"), strings.HasPrefix(hash, "$6$"):
		return "has a SHA-2 crypt hash; make it bcrypt (htpasswd -B)"
	case !strings.HasPrefix(hash, "$2") && !strings.HasPrefix(hash, "$argon2id$"):
		return "has a hash that is neither bcrypt nor argon2id (a plain password, perhaps); make it bcrypt (htpasswd -B)"
	}
	if err := password.Valid(hash); err != nil {
		return err.Error()
	}
	return ""
}
