package certs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/certs"
)

// watched runs f with a pair of files in service and a fake clock.
func watched(t *testing.T, life time.Duration, f func(t *testing.T, w *world)) {
	t.Helper()
	watchedEvery(t, 0, life, f)
}

func watchedEvery(t *testing.T, interval, life time.Duration, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{dir: t.TempDir()}
		w.pair = made{names: []string{"first.example.com"}, life: life}.write(t, w.dir)
		cs, err := certs.New(certs.Config{Certificates: []certs.Pair{w.pair}},
			certs.Env{Data: w.dir, Hosts: []string{"first.example.com"}, Notify: w.notices.add, Interval: interval})
		check(t, err)
		w.cs = cs
		check(t, cs.Start(t.Context()))
		defer cs.Close()
		synctest.Wait()
		f(t, w)
	})
}

type world struct {
	dir     string
	pair    certs.Pair
	cs      *certs.Certs
	notices notices
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) replace(t *testing.T, m made) {
	t.Helper()
	cert, key := m.pem(t)
	check(t, os.WriteFile(w.pair.Cert, cert, 0o644))
	check(t, os.WriteFile(w.pair.Key, key, 0o600))
}

// expect compares what has been told since the last time.
func (w *world) expect(t *testing.T, want ...merlon.Reason) []certs.Notice {
	t.Helper()
	got := w.notices.take()
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && got[i].Reason == want[i]
	}
	if !ok {
		t.Errorf("told %+v, want %v", got, want)
	}
	return got
}

func (w *world) serves(t *testing.T, want string) {
	t.Helper()
	if got := shown(t, w.cs, "x.example", "127.0.0.1"); got != want {
		t.Errorf("shown %q, want %q", got, want)
	}
}

const twoLooks = 21 * time.Second

func TestFilesAreReadAgain(t *testing.T) {
	t.Run("unchanged", func(t *testing.T) {
		watched(t, 90*day, func(t *testing.T, w *world) {
			w.pass(time.Hour)
			w.expect(t)
			w.serves(t, "first.example.com")
		})
	})
	t.Run("written in place", func(t *testing.T) {
		watched(t, 90*day, func(t *testing.T, w *world) {
			w.replace(t, made{names: []string{"second.example.com"}})
			w.pass(twoLooks)
			w.serves(t, "second.example.com")
			w.expect(t, certs.CertificateRenewed)
		})
	})
	t.Run("renamed over", func(t *testing.T) {
		watched(t, 90*day, func(t *testing.T, w *world) {
			fresh := made{names: []string{"second.example.com"}}.write(t, t.TempDir())
			check(t, os.Rename(fresh.Key, w.pair.Key))
			check(t, os.Rename(fresh.Cert, w.pair.Cert))
			w.pass(twoLooks)
			w.serves(t, "second.example.com")
		})
	})
	t.Run("certificate now, key a moment later", func(t *testing.T) {
		watched(t, 90*day, func(t *testing.T, w *world) {
			cert, key := made{names: []string{"second.example.com"}}.pem(t)
			check(t, os.WriteFile(w.pair.Cert, cert, 0o644))
			w.pass(11 * time.Second)
			check(t, os.WriteFile(w.pair.Key, key, 0o600))
			w.pass(11 * time.Second)
			w.serves(t, "second.example.com")
			w.expect(t, certs.CertificateRenewed)
		})
	})
	t.Run("usable only when its time has come", func(t *testing.T) {
		watched(t, 90*day, func(t *testing.T, w *world) {
			w.replace(t, made{names: []string{"second.example.com"}, notBefore: time.Now().Add(time.Hour)})
			w.pass(twoLooks)
			w.expect(t, certs.CertificateUnusable)
			w.pass(time.Hour)
			w.expect(t, certs.CertificateRenewed)
			w.serves(t, "second.example.com")
		})
	})
}

// Kubernetes mounts secrets as links through ..data, which it swaps.
func TestKubernetesSwapsALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for _, v := range []string{"first", "second"} {
			cert, key := made{names: []string{v + ".example.com"}}.pem(t)
			check(t, os.Mkdir(filepath.Join(dir, "..", filepath.Base(dir), ".."+v), 0o755))
			check(t, os.WriteFile(filepath.Join(dir, ".."+v, "tls.crt"), cert, 0o644))
			check(t, os.WriteFile(filepath.Join(dir, ".."+v, "tls.key"), key, 0o640))
		}
		data := filepath.Join(dir, "..data")
		check(t, os.Symlink("..first", data))
		pair := certs.Pair{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), GroupReadable: true}
		check(t, os.Symlink("..data/tls.crt", pair.Cert))
		check(t, os.Symlink("..data/tls.key", pair.Key))
		w := &world{}
		cs, err := certs.New(certs.Config{Certificates: []certs.Pair{pair}}, certs.Env{Notify: w.notices.add})
		check(t, err)
		w.cs = cs
		check(t, cs.Start(t.Context()))
		defer cs.Close()
		w.serves(t, "first.example.com")
		check(t, os.Symlink("..second", data+"_tmp"))
		check(t, os.Rename(data+"_tmp", data))
		w.pass(twoLooks)
		w.serves(t, "second.example.com")
		w.expect(t, certs.CertificateRenewed)
	})
}

func TestABadPairKeepsTheOldOne(t *testing.T) {
	for _, c := range []struct {
		name, want string
		spoil      func(t *testing.T, w *world)
	}{
		{"garbage", "failed to find any PEM data", func(t *testing.T, w *world) { check(t, os.WriteFile(w.pair.Cert, []byte("?"), 0o644)) }},
		{"missing", "no such file", func(t *testing.T, w *world) { check(t, os.Remove(w.pair.Key)) }},
		{"key of another", "does not match", func(t *testing.T, w *world) {
			_, key := made{names: []string{"second.example.com"}}.pem(t)
			check(t, os.WriteFile(w.pair.Key, key, 0o600))
		}},
		{"expired", "must not have expired", func(t *testing.T, w *world) {
			w.replace(t, made{names: []string{"second.example.com"}, notBefore: time.Now().Add(-2 * day), life: day})
		}},
		{"readable by all", "must not be accessible to others", func(t *testing.T, w *world) {
			w.replace(t, made{names: []string{"second.example.com"}})
			check(t, os.Chmod(w.pair.Key, 0o644))
		}},
		{"endless", "at most 1 MiB", func(t *testing.T, w *world) {
			check(t, os.WriteFile(w.pair.Cert, make([]byte, 2<<20), 0o644))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			watched(t, 90*day, func(t *testing.T, w *world) {
				c.spoil(t, w)
				w.pass(twoLooks)
				w.serves(t, "first.example.com")
				told := w.expect(t, certs.CertificateUnusable)
				if len(told) == 1 && (told[0].Err == nil || !strings.Contains(told[0].Err.Error(), c.want) || !told[0].Alarm()) {
					t.Errorf("the cause is %v, want %q", told[0].Err, c.want)
				}
				w.pass(10 * time.Minute) // said once, not every ten seconds
				w.expect(t)
				w.replace(t, made{names: []string{"third.example.com"}})
				check(t, os.Chmod(w.pair.Key, 0o600))
				w.pass(twoLooks)
				w.serves(t, "third.example.com")
				w.expect(t, certs.CertificateRenewed)
			})
		})
	}
}

func TestAlarmsBeforeTheEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		life time.Duration
		days []int // at which there is an alarm; the end itself always is one
	}{
		{"90 days", 90 * day, []int{14, 7, 3, 1}},
		{"47 days", 47 * day, []int{14, 7, 3, 1}},
		{"6 days, renewed when two are left", 6 * day, []int{1}},
		{"10 days", 10 * day, []int{3, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			watchedEvery(t, 10*time.Minute, c.life, func(t *testing.T, w *world) {
				end := w.cs.Certificates()[0].NotAfter
				w.expect(t)
				for _, d := range c.days {
					w.pass(time.Until(end) - time.Duration(d)*day - 20*time.Minute)
					w.expect(t)
					w.pass(40 * time.Minute)
					told := w.expect(t, certs.CertificateExpiring)
					if len(told) == 1 && (told[0].Days != d || told[0].Name != "first.example.com" || told[0].Place != w.pair.Cert) {
						t.Errorf("told %+v, want %d days", told[0], d)
					}
				}
				w.pass(time.Until(end) + 20*time.Minute)
				w.expect(t, certs.CertificateExpired)
				w.pass(day)
				w.expect(t)
				w.serves(t, "first.example.com")
			})
		})
	}
	t.Run("begun late, it tells the tightest only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{dir: t.TempDir()}
			pair := made{names: []string{"first.example.com"}, notBefore: time.Now().Add(-88 * day), life: 90 * day}.write(t, w.dir)
			cs, err := certs.New(certs.Config{Certificates: []certs.Pair{pair}}, certs.Env{Notify: w.notices.add})
			check(t, err)
			check(t, cs.Start(t.Context()))
			defer cs.Close()
			w.pass(time.Hour)
			if told := w.expect(t, certs.CertificateExpiring); len(told) == 1 && told[0].Days != 3 {
				t.Errorf("told %d days", told[0].Days)
			}
		})
	})
}
