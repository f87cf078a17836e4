package provider_test

import (
	"bufio"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/identity/provider"
)

// TestCertifiedClient signs somebody in to an application made of
// openid-client, a certified relying party. It needs node, and
// MERLON_NODE_MODULES, a folder where "npm install openid-client" was done.
func TestCertifiedClient(t *testing.T) {
	modules := os.Getenv("MERLON_NODE_MODULES")
	if modules == "" {
		t.Skip("set MERLON_NODE_MODULES to a folder where npm install openid-client was done")
	}
	w := newWorld(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "testdata/client.mjs", modules, w.issuer, "wiki", secretWiki, callback)
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+ca)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("the application says nothing")
		}
		return lines.Text()
	}
	u, err := url.Parse(next())
	if err != nil {
		t.Fatal(err)
	}
	res := w.browse(t, "GET", u.RequestURI(), nil)
	if _, err := fmt.Fprintln(in, res.Header.Get("Location")); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Claims, Info  map[string]any
		Active, Ended bool
		Out           string
	}
	if err := json.Unmarshal([]byte(next()), &got); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got.Claims["sub"] != "ANN" || got.Info["email"] != "ann@example.com" || !got.Active || !got.Ended || !strings.HasPrefix(got.Out, w.issuer+provider.EndSession+"?") {
		t.Errorf("%+v", got)
	}
}
