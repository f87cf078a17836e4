package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// startups is how often the start is timed.
const startups = 3

// A peer is a gateway under measurement: one process and its children.
type peer struct {
	name string
	addr string
	cmd  *exec.Cmd
}

type bench struct {
	dir     string
	backend *peer
	peers   []*peer
	startup time.Duration
	idle    int64
}

func (b *bench) start(only string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	merlon := filepath.Join(b.dir, "merlon")
	build := exec.Command("go", "build", "-trimpath", "-o", merlon, "./cmd/merlon")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	addr := freeAddr()
	if b.backend, err = b.launch("backend", addr, self, "serve-backend", addr); err != nil {
		return err
	}
	wanted := func(name string) bool {
		for w := range strings.SplitSeq(only, ",") {
			if strings.HasPrefix(strings.ToLower(name), strings.ToLower(w)) {
				return true
			}
		}
		return false
	}
	add := func(name string, launch func(name, addr string) (*peer, error)) error {
		if !wanted(name) {
			return nil
		}
		p, err := launch(name, freeAddr())
		if err != nil && (strings.HasPrefix(name, "nginx") || name == "HAProxy") {
			fmt.Fprintf(os.Stderr, "%s is left out: %v\n", name, err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		pin(p.cmd.Process.Pid, 0)
		b.peers = append(b.peers, p)
		return nil
	}
	conf := filepath.Join(b.dir, "merlon.yaml")
	text := fmt.Sprintf("limit: {rate: 1000000/s, burst: 1000000}\nsites:\n  - host: \"*\"\n    upstream: http://%s\n", addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	serve := func(more ...string) func(name, addr string) (*peer, error) {
		return func(name, a string) (*peer, error) {
			args := append([]string{"serve", "-c", conf, "--data", filepath.Join(b.dir, a), "--https", "off", "--http", "off", "--admin", "off", "--insecure-http", a}, more...)
			return b.launch(name, a, merlon, args...)
		}
	}
	if err := b.timeStart(serve()); err != nil {
		return err
	}
	for _, p := range b.candidates(self, serve) {
		if err := add(p.name, p.launch); err != nil {
			return err
		}
	}
	return nil
}

// A candidate is a gateway that can be measured.
type candidate struct {
	name   string
	launch func(name, addr string) (*peer, error)
}

// candidates are the gateways there are on this machine.
func (b *bench) candidates(self string, merlon func(more ...string) func(name, addr string) (*peer, error)) []candidate {
	list := []candidate{
		{"bare Go ReverseProxy", func(name, a string) (*peer, error) {
			return b.launch(name, a, self, "serve-bare", a, b.backend.addr)
		}},
		{"Merlon, WAF off", merlon("--off=waf")},
		{"Merlon, all guards", merlon()},
	}
	if _, err := exec.LookPath("nginx"); err == nil {
		list = append(list, candidate{"nginx", b.nginx("")})
		if modsecurityCRS() {
			list = append(list, candidate{"nginx + ModSecurity + CRS", b.nginx(b.modsecurity())})
		}
	}
	if _, err := exec.LookPath("haproxy"); err == nil {
		list = append(list, candidate{"HAProxy", b.haproxy})
	}
	return list
}

// timeStart measures from the start of the process to its first answer, and
// the memory it then has.
func (b *bench) timeStart(launch func(name, addr string) (*peer, error)) error {
	var took []time.Duration
	for range startups {
		began := time.Now()
		p, err := launch("Merlon", freeAddr())
		if err != nil {
			return err
		}
		took = append(took, time.Since(began))
		b.idle = p.rss()
		p.end()
	}
	b.startup = median(took)
	return nil
}

// launch starts a process and waits until it answers a request.
func (b *bench) launch(name, addr, program string, args ...string) (*peer, error) {
	log, err := os.Create(filepath.Join(b.dir, strings.ReplaceAll(name+addr, "/", "_")+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peer{name: name, addr: addr, cmd: cmd}
	ask := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for range 1500 {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			res, err := ask.Get("http://" + addr + "/")
			if err == nil {
				return p, res.Body.Close()
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.end()
	text, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("does not answer\n%s", text)
}

func (b *bench) stop() {
	for _, p := range b.peers {
		p.end()
	}
	if b.backend != nil {
		b.backend.end()
	}
}

func (p *peer) end() {
	_ = p.cmd.Process.Signal(unix.SIGQUIT) // at once, with its workers; nobody is waiting for an answer
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
		for _, pid := range p.pids() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		<-done
	}
}

// pids are the process and its children (nginx and HAProxy have workers).
func (p *peer) pids() []int {
	pid := p.cmd.Process.Pid
	all := []int{pid}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return all
	}
	for f := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(f); err == nil {
			all = append(all, child)
		}
	}
	return all
}

// cpu is the processor time used so far, from the scheduler's own nanoseconds.
func (p *peer) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range p.pids() {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			continue
		}
		for _, t := range tasks {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
			if err != nil {
				continue
			}
			if f := strings.Fields(string(text)); len(f) > 0 {
				ns, _ := strconv.ParseInt(f[0], 10, 64) // the kernel's own number
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

func (p *peer) rss() int64 {
	var sum int64
	for _, pid := range p.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue
		}
		if f := strings.Fields(string(text)); len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64) // the kernel's own number
			sum += pages * int64(os.Getpagesize())
		}
	}
	return sum
}

// pin keeps every thread of a process on one core.
func pin(pid, core int) {
	var set unix.CPUSet
	set.Set(core)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return
	}
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.SchedSetaffinity(tid, &set) // the thread may have ended
		}
	}
}

func freeAddr() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // no loopback, no benchmark
	}
	defer ln.Close()
	return ln.Addr().String()
}

const modules = "/usr/share/nginx/modules-available/mod-http-modsecurity.conf"

func modsecurityCRS() bool {
	_, err := os.Stat(modules)
	crs, _ := filepath.Glob("/usr/share/modsecurity-crs/rules/*.conf")
	return err == nil && len(crs) > 0
}

func (b *bench) modsecurity() string {
	return `modsecurity on; modsecurity_rules 'SecRuleEngine On
SecRequestBodyAccess On
SecRule REQUEST_HEADERS:Content-Type "^application/json" "id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
Include /etc/modsecurity/crs/crs-setup.conf
Include /usr/share/modsecurity-crs/rules/*.conf';`
}

// nginx launches nginx as a plain proxy, with extra directives in its location.
func (b *bench) nginx(extra string) func(name, addr string) (*peer, error) {
	return func(name, addr string) (*peer, error) {
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
		return b.launch(name, addr, "nginx", "-c", file, "-p", dir)
	}
}

func (b *bench) haproxy(name, addr string) (*peer, error) {
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
	return b.launch(name, addr, "haproxy", "-db", "-f", file)
}
