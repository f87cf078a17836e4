package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// oauth2Module is built outside this module, which does not need it.
const oauth2Module = "github.com/oauth2-proxy/oauth2-proxy/v7@v7.15.6"

// oauth2Cost is that of its users' bcrypt hashes: the least that ASVS allows.
const oauth2Cost = 10

// oauth2Proxy launches oauth2-proxy as a proxy with a log-in form of its own,
// users in an htpasswd file and sessions in encrypted cookies, and logs in.
// The identity provider that it must also have is never asked.
func (s *signIn) oauth2Proxy(cores int, more ...string) func(name string) (*peer, string, error) {
	return func(name string) (*peer, string, error) {
		program := filepath.Join(s.dir, "oauth2-proxy")
		if _, err := os.Stat(program); err != nil {
			install := exec.Command("go", "install", oauth2Module)
			install.Dir = s.dir
			install.Env = append(os.Environ(), "GOBIN="+s.dir)
			if out, err := install.CombinedOutput(); err != nil {
				return nil, "", fmt.Errorf("cannot be built: %w\n%s", err, out)
			}
		}
		users, err := s.htpasswd()
		if err != nil {
			return nil, "", err
		}
		addr := freeAddr()
		p, err := s.launchOn(cores, name, addr, program, append([]string{
			"--http-address=" + addr, "--upstream=http://" + s.backend.addr, "--htpasswd-file=" + users,
			"--provider=github", "--client-id=none", "--client-secret=none", "--email-domain=*",
			"--cookie-secret=" + rand.Text() + rand.Text()[:6], "--cookie-secure=false", "--reverse-proxy=true", "--trusted-proxy-ip=127.0.0.0/8",
			"--request-logging=false", "--auth-logging=false", "--standard-logging=false",
		}, more...)...)
		if err != nil {
			return nil, "", err
		}
		if len(more) > 0 { // nobody is asked
			return p, "", nil
		}
		f := oauth2Form()
		res, text, err := fetch(addr, f.wire(benchUser, benchPassword(benchUser)))
		if err == nil && res.StatusCode != f.right {
			err = fmt.Errorf("the log-in was answered %s\n%s", res.Status, text)
		}
		if err != nil {
			p.end()
			return nil, "", err
		}
		return p, cookies(res), nil
	}
}

func oauth2Form() form {
	return form{
		name: fmt.Sprintf("oauth2-proxy, bcrypt of cost %d", oauth2Cost), path: "/oauth2/sign_in", user: "username",
		right: http.StatusFound, wrong: http.StatusUnauthorized,
	}
}

// htpasswd writes the users' file, once.
func (s *signIn) htpasswd() (string, error) {
	file := filepath.Join(s.dir, "htpasswd")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	var lines strings.Builder
	for i := range floodAccounts {
		name := benchAccount(i).Name
		hash, err := bcrypt.GenerateFromPassword([]byte(benchPassword(name)), oauth2Cost)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&lines, "%s:%s\n", name, hash)
	}
	return file, os.WriteFile(file, []byte(lines.String()), 0o600)
}
