package people_test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

// address is the n-th of many that have nothing in common.
func address(n int) string { return fmt.Sprintf("%d.%d.%d.7", 11+n%80, n/80%250, n/7%250) }

// cpu is what a process has used, user and system.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	ticks := 0
	for _, i := range []int{11, 12} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// flood sends a log-in form n times by some workers, each time as change says,
// and returns how often there was which status.
func flood(t *testing.T, who *harness.Person, n int, each func(i int) (name, pass, from string)) map[int]int {
	t.Helper()
	page := who.Get("/.merlon/login").Want(200)
	status := make([]atomic.Int64, 600)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				name, pass, from := each(i)
				r := page.Form("/.merlon/login", "name", name, "password", pass)
				r.Header.Set("X-Forwarded-For", from)
				got, err := who.Ask(r)
				if err != nil {
					t.Error(err)
					return
				}
				if got.SignedIn() != "" {
					status[599].Add(1)
				}
				status[got.Status].Add(1)
			}
		})
	}
	wg.Wait()
	counts := map[int]int{}
	for s := range status {
		if c := status[s].Load(); c > 0 {
			counts[s] = int(c)
		}
	}
	return counts
}

const guessed = "off: [waf]\ntrusted_proxies: [127.0.0.1]\nidentity:\n" + cheap + requireLogin

// Trap 44: thousands of guesses at one account from everywhere, and its owner
// gets in all the while on the browser that logged in before.
func TestManyGuessOnePassword(t *testing.T) {
	p := open(t, guessed)
	owner := p.person()
	owner.Head.Set("X-Forwarded-For", "198.51.100.4")
	owner.SignIn("/.merlon/login", "ann", annsPassword)
	before, used := p.RSS(t), cpu(t, p.PID)

	stop := make(chan struct{})
	var logIns, turnedAway int
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			owner.Get("/.merlon/logout").Send("/.merlon/logout")
			got := owner.Get("/.merlon/login").Send("/.merlon/login", "name", "ann", "password", annsPassword)
			logIns++
			if got.SignedIn() == "" {
				turnedAway++
				t.Logf("log-in %d of the owner: %d", logIns, got.Status)
			}
			time.Sleep(150 * time.Millisecond)
		}
	})
	began := time.Now()
	attacker := p.person()
	got := flood(t, attacker, 3000, func(i int) (string, string, string) {
		name := []string{"ann", "ANN", "Ann ", "ａｎｎ"}[i%4] // one account, however it is spelled
		return name, fmt.Sprint("guess number ", i), address(i)
	})
	took := time.Since(began)
	close(stop)
	wg.Wait()
	t.Logf("3000 guesses in %v: %v; %d log-ins of the owner; %v of CPU, %d MiB more", took.Round(time.Millisecond), got, logIns,
		(cpu(t, p.PID) - used).Round(time.Millisecond), (p.RSS(t)-before)>>20)
	if got[599] != 0 || got[200] != 0 || got[403]+got[429] != 3000 {
		t.Errorf("answers: %v", got)
	}
	if got[403] > 100+logIns {
		t.Errorf("%d guesses were looked at; NIST SP 800-63B-4 allows 100", got[403])
	}
	if logIns < 3 || turnedAway > 0 {
		t.Errorf("the owner was turned away %d times of %d", turnedAway, logIns)
	}
	if more := p.RSS(t) - before; more > 96<<20 {
		t.Errorf("it took %d MiB of memory", more>>20)
	}
	if took := cpu(t, p.PID) - used; took > 15*time.Second {
		t.Errorf("it took %v of CPU", took)
	}
	// Others are not held up, and who attacks is told no more than a stranger.
	p.in("bob", bobsPassword).Get("/").Want(200, "backend BOB-ID")
	if e := p.alarms(attempts.AccountAttacked); e[0].Attrs["user"] != "ann" {
		t.Errorf("%+v", e[0])
	}
}

// Trap 44: one password over many accounts, from many addresses.
func TestOnePasswordOverManyAccounts(t *testing.T) {
	data := t.TempDir()
	const many = 300
	var accounts []account.Account
	for i := range many {
		pass := annsPassword
		if i == many-1 {
			pass = "Summer2026!Summer2026!" // the one that the spray looks for
		}
		accounts = append(accounts, someone(fmt.Sprintf("user%03d", i), hashed(t, pass)))
	}
	seed(t, store.Config{Dir: data}, accounts...)
	p := serve(t, data, guessed, nil)
	got := flood(t, p.person(), many, func(i int) (string, string, string) {
		return fmt.Sprintf("user%03d", i), "Summer2026!Summer2026!", address(i)
	})
	t.Logf("a spray: %v", got)
	if got[599] != 0 || got[403] > 30 || got[403]+got[429] != many {
		t.Errorf("answers: %v", got)
	}
	// Somebody with a password of their own gets in at once, from an address that
	// the spray came from.
	who := p.person()
	who.Head.Set("X-Forwarded-For", address(3))
	who.SignIn("/.merlon/login", "user200", annsPassword)
	who.Get("/").Want(http.StatusOK, "backend USER200-ID")
	if e := p.alarms(attempts.PasswordSprayed); strings.Contains(fmt.Sprintf("%+v", e), "Summer") {
		t.Errorf("the password is in the event log: %+v", e)
	}
}

// alarms are the events by which somebody is told.
func (p *place) alarms(kind string) []ledger.Event {
	p.t.Helper()
	return p.Events(p.t, 1, func(e ledger.Event) bool { return e.Kind == ledger.Alarm && e.Guard == "identity" && e.Message == kind })
}
