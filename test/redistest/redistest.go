// Package redistest starts Redis servers of a test's own: on a socket, with TLS
// and one user, in a cluster, behind a Sentinel. They end with the test, which
// is skipped if this machine has none.
package redistest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
)

// A Server is a redis-server of a test's own.
type Server struct {
	cmd  *exec.Cmd
	args []string
}

// Start starts a server with arguments beside those that keep it small. The
// test is skipped if this machine has none.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		tb.Skip("needs redis-server (Debian package redis-server)")
	}
	s := &Server{args: append([]string{bin, "--save", "", "--appendonly", "no", "--dir", tb.TempDir()}, args...)}
	s.Run(tb)
	tb.Cleanup(s.Kill)
	return s
}

// Run starts the server again after Kill: empty then.
func (s *Server) Run(tb testing.TB) {
	tb.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
}

// Kill ends the server at once.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	_, _ = s.cmd.Process.Wait()
}

// Dial connects as soon as the server answers.
func Dial(tb testing.TB, at string) rueidis.Client {
	tb.Helper()
	var err error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var c rueidis.Client
		if c, err = redis.Dial(secrets.New(at)); err == nil {
			tb.Cleanup(c.Close)
			return c
		}
	}
	tb.Fatal(err)
	return nil
}

// OnSocket starts a server that listens on a socket only, and returns its URL.
func OnSocket(tb testing.TB, args ...string) (*Server, string) {
	tb.Helper()
	// A socket's path has 108 bytes at most, which the name of a test may fill.
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	s := Start(tb, append([]string{"--port", "0", "--unixsocket", path, "--unixsocketperm", "700"}, args...)...)
	return s, "unix://" + path
}

// FreePort returns a port of this machine that nobody listens on.
func FreePort(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// WithTLS starts a server that speaks only TLS and knows only one user, who may
// Do what the manual says. It returns its URL.
func WithTLS(tb testing.TB, rights ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	selfSigned(tb, cert, key)
	acl := filepath.Join(dir, "users.acl")
	line := "user merlon on >s3cret resetchannels"
	for _, r := range rights {
		line += " " + r
	}
	Write(tb, acl, []byte("user default off\n"+line+"\n"))
	port := FreePort(tb)
	Start(tb, "--port", "0", "--bind", "127.0.0.1", "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-auth-clients", "no", "--aclfile", acl)
	return fmt.Sprintf("rediss://merlon:s3cret@127.0.0.1:%s?ca=%s", port, cert)
}

func selfSigned(tb testing.TB, certFile, keyFile string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	Write(tb, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	Write(tb, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

// Write writes a file that only its owner reads.
func Write(tb testing.TB, file string, b []byte) {
	tb.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Cluster starts three servers that share the slots, and returns a URL.
func Cluster(tb testing.TB) string {
	tb.Helper()
	var ports []string
	var nodes []rueidis.Client
	for range 3 {
		port := FreePort(tb)
		Start(tb, "--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-node-timeout", "5000",
			"--cluster-port", FreePort(tb))
		ports = append(ports, port)
	}
	for i, port := range ports {
		var c rueidis.Client
		var err error
		for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			c, err = rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:" + port}, ForceSingleClient: true, DisableCache: true})
			if err == nil {
				break
			}
		}
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(c.Close)
		nodes = append(nodes, c)
		first, last := i*16384/3, (i+1)*16384/3-1
		Do(tb, c, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
	}
	for i, s := range ports[1:] {
		bus := Do(tb, nodes[i+1], "CONFIG", "GET", "cluster-port")
		Do(tb, nodes[0], "CLUSTER", "MEET", "127.0.0.1", s, bus)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		ok := 0
		for _, c := range nodes {
			info, err := c.Do(context.Background(), c.B().ClusterInfo().Build()).ToString()
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") {
				ok++
			}
		}
		if ok == len(nodes) {
			break
		}
		if time.Now().After(deadline) {
			tb.Fatal("the cluster does not come up")
		}
	}
	return "redis://127.0.0.1:" + ports[0] + "?addr=127.0.0.1:" + ports[1]
}

// Sentinel starts a server and a Sentinel that knows it, and returns a URL.
func Sentinel(tb testing.TB) string {
	tb.Helper()
	port, at := FreePort(tb), FreePort(tb)
	users := []string{"--user", "default", "off", "--user", "merlon", "on", ">s3cret", "allkeys", "allchannels", "+@all"}
	Start(tb, append([]string{"--port", port, "--bind", "127.0.0.1"}, users...)...)
	conf := filepath.Join(tb.TempDir(), "sentinel.conf")
	Write(tb, conf, []byte(fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 %s 1\n"+
		"sentinel auth-user main merlon\nsentinel auth-pass main s3cret\n", at, port)))
	StartSentinel(tb, conf)
	return "redis://merlon:s3cret@127.0.0.1:" + at + "?master_set=main"
}

// StartSentinel starts a Sentinel with a configuration file.
func StartSentinel(tb testing.TB, conf string) {
	tb.Helper()
	s := &Server{args: []string{"redis-server", conf, "--sentinel"}}
	s.Run(tb)
	tb.Cleanup(s.Kill)
}

// Do sends a command and returns the last text of its answer.
func Do(tb testing.TB, c rueidis.Client, words ...string) string {
	tb.Helper()
	r := c.Do(context.Background(), c.B().Arbitrary(words...).Build())
	if err := r.Error(); err != nil {
		tb.Fatalf("%v: %v", words, err)
	}
	if m, err := r.AsStrMap(); err == nil {
		for _, v := range m {
			return v
		}
	}
	s, _ := r.ToString()
	return s
}

// Signal sends the server a signal.
func (s *Server) Signal(tb testing.TB, sig syscall.Signal) {
	tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		tb.Fatal(err)
	}
}

// Eventually waits for ten seconds for something to be so.
func Eventually(tb testing.TB, why string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	tb.Errorf("%s: not within ten seconds", why)
}
