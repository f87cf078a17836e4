package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
)

// caddyModule is built outside this module, which does not need it.
const caddyModule = "github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9"

// caddy launches Caddy as a plain proxy: no admin, no access log, no TLS.
func (b *bench) caddy(name, addr string) (*peer, error) {
	install := exec.Command("go", "install", caddyModule)
	install.Dir = b.dir
	install.Env = append(os.Environ(), "GOBIN="+b.dir)
	if out, err := install.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot be built: %w\n%s", err, out)
	}
	type object = map[string]any
	proxy := object{"handler": "reverse_proxy", "upstreams": []object{{"dial": b.backend.addr}}}
	conf, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"apps": object{"http": object{"servers": object{"bench": object{
			"listen":          []string{addr},
			"automatic_https": object{"disable": true},
			"routes":          []object{{"handle": []object{proxy}}},
		}}}},
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.dir, "caddy.json")
	if err := os.WriteFile(file, conf, 0o600); err != nil {
		return nil, err
	}
	return b.launch(name, addr, filepath.Join(b.dir, "caddy"), "run", "--config", file)
}

// nginx launches nginx as a plain proxy, with extra directives in its server.
func (b *bench) nginx(extra string) func(name, addr string) (*peer, error) {
	return func(name, addr string) (*peer, error) {
		program, err := exec.LookPath("nginx")
		if err != nil {
			return nil, errors.New("not installed (Debian: nginx)")
		}
		load := ""
		if extra != "" {
			load = "load_module /usr/lib/nginx/modules/ngx_http_modsecurity_module.so;\n"
		}
		dir := filepath.Join(b.dir, "nginx-"+strings.ReplaceAll(addr, ":", "-"))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		conf := fmt.Sprintf(`%sworker_processes 1; pid %[2]s/pid; error_log %[2]s/error.log; daemon off;
events { worker_connections 256; }
http {
  access_log off; client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/f; uwsgi_temp_path %[2]s/u; scgi_temp_path %[2]s/s;
  upstream backend { server %[3]s; keepalive 64; }
  server { listen %[4]s; keepalive_requests 100000000; %[5]s
    location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }
  }
}`, load, dir, b.backend.addr, addr, extra)
		file := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
			return nil, err
		}
		return b.launch(name, addr, program, "-c", file, "-p", dir)
	}
}

// modsecurity launches nginx with ModSecurity and the rules of a CRS, which
// are asked about requests and answers.
func (b *bench) modsecurity(crs func() (setup, rules string, err error)) func(name, addr string) (*peer, error) {
	return func(name, addr string) (*peer, error) {
		if _, err := os.Stat("/usr/share/nginx/modules-available/mod-http-modsecurity.conf"); err != nil {
			return nil, errors.New("not installed (Debian: libnginx-mod-http-modsecurity)")
		}
		setup, rules, err := crs()
		if err != nil {
			return nil, err
		}
		return b.nginx(`modsecurity on; modsecurity_rules 'SecRuleEngine On
SecRequestBodyAccess On
SecResponseBodyAccess On
SecResponseBodyMimeType text/plain text/html text/xml
SecRule REQUEST_HEADERS:Content-Type "^application/json" "id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
Include `+setup+`
Include `+rules+`/*.conf';`)(name, addr)
	}
}

// debianCRS is the one that Debian packs.
func debianCRS() (setup, rules string, err error) {
	setup, rules = "/etc/modsecurity/crs/crs-setup.conf", "/usr/share/modsecurity-crs/rules"
	if _, err := os.Stat(rules); err != nil {
		return "", "", errors.New("not installed (Debian: modsecurity-crs)")
	}
	return setup, rules, nil
}

var endOfDirective = regexp.MustCompile(`([^\\\n])\n`)

// writeCRS writes the one that Merlon embeds where ModSecurity can read it.
func (b *bench) writeCRS() (setup, rules string, err error) {
	setup, rules = filepath.Join(b.dir, "crs-setup.conf"), filepath.Join(b.dir, "crs-rules")
	if err := os.MkdirAll(rules, 0o755); err != nil {
		return "", "", err
	}
	files, err := fs.Glob(coreruleset.FS, "@owasp_crs/*")
	if err != nil {
		return "", "", err
	}
	copies := map[string]string{"@crs-setup.conf.example": setup}
	for _, f := range files {
		copies[f] = filepath.Join(rules, path.Base(f))
	}
	for from, to := range copies {
		text, err := fs.ReadFile(coreruleset.FS, from)
		if err != nil {
			return "", "", err
		}
		if path.Ext(to) == ".conf" {
			// ModSecurity 3 takes the line after a rule without actions for
			// its actions unless one is empty.
			text = endOfDirective.ReplaceAll(text, []byte("$1\n\n"))
		}
		if err := os.WriteFile(to, text, 0o644); err != nil {
			return "", "", err
		}
	}
	return setup, rules, nil
}

func (b *bench) haproxy(name, addr string) (*peer, error) {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, errors.New("not installed (Debian: haproxy)")
	}
	conf := fmt.Sprintf(`global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind %s
  option forwardfor
  default_backend b
backend b
  http-reuse always
  server s %s
`, addr, b.backend.addr)
	file := filepath.Join(b.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return b.launch(name, addr, program, "-db", "-f", file)
}
