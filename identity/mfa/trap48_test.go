package mfa_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/descope/virtualwebauthn"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
)

// What an answer must be refused for, when it logs somebody in and when a
// passkey is made.
func TestTrap48(t *testing.T) {
	set := func(name string, value any) func(*testing.T, *device, []byte) []byte {
		return func(t *testing.T, d *device, answer []byte) []byte {
			return d.resign(t, answer, func(client map[string]any) { client[name] = value })
		}
	}
	for _, c := range []struct {
		name   string
		device func(*device)
		answer func(*testing.T, *device, []byte) []byte
	}{
		{name: "rpId of another site", device: func(d *device) { d.rp.ID = "wiki.example.com" }},
		{name: "rpId of the parent domain", device: func(d *device) { d.rp.ID = "example.com" }},
		{name: "rpId of a sub-domain", device: func(d *device) { d.rp.ID = "a.shop.example.com" }},
		{name: "another origin", device: func(d *device) { d.rp.Origin = wiki }},
		{name: "origin of a sub-domain", device: func(d *device) { d.rp.Origin = "https://a.shop.example.com" }},
		{name: "origin of the parent domain", device: func(d *device) { d.rp.Origin = "https://example.com" }},
		{name: "another port", device: func(d *device) { d.rp.Origin = shop + ":8443" }},
		{name: "without TLS", device: func(d *device) { d.rp.Origin = "http://shop.example.com" }},
		{name: "origin with a suffix", device: func(d *device) { d.rp.Origin = shop + ".evil.example" }},
		{name: "origin with a user", device: func(d *device) { d.rp.Origin = "https://shop.example.com@evil.example" }},
		{name: "origin with a path", device: func(d *device) { d.rp.Origin = shop + "/" }},
		{name: "origin in upper case", device: func(d *device) { d.rp.Origin = strings.ToUpper(shop) }},
		{name: "no origin", device: func(d *device) { d.rp.Origin = "" }},
		{name: "origin null", device: func(d *device) { d.rp.Origin = "null" }},
		{name: "nobody touched the key", device: func(d *device) { d.auth.Options.UserNotPresent = true }},
		{name: "the key did not verify its owner", device: func(d *device) { d.auth.Options.UserNotVerified = true }},
		{name: "backed up but not to be backed up", device: func(d *device) { d.auth.Options.BackupState = true }},
		{name: "cross-origin iframe", answer: set("crossOrigin", true)},
		{name: "cross-origin iframe that names its top", answer: func(t *testing.T, d *device, a []byte) []byte {
			return d.resign(t, a, func(client map[string]any) { client["crossOrigin"], client["topOrigin"] = true, shop })
		}},
		{name: "a top origin without a frame", answer: set("topOrigin", "https://evil.example")},
		{name: "another challenge", answer: set("challenge", base64.RawURLEncoding.EncodeToString(make([]byte, 32)))},
		{name: "no challenge", answer: set("challenge", "")},
		{name: "another type", answer: set("type", "payment.get")},
		{name: "oversized", answer: func(_ *testing.T, _ *device, a []byte) []byte {
			return append(a, bytes.Repeat([]byte(" "), 16<<10)...)
		}},
		{name: "something after it", answer: func(_ *testing.T, _ *device, a []byte) []byte { return append(a, "{}"...) }},
		{name: "cut", answer: func(_ *testing.T, _ *device, a []byte) []byte { return a[:len(a)-1] }},
		{name: "empty", answer: func(_ *testing.T, _ *device, a []byte) []byte { return nil }},
		{name: "null", answer: func(_ *testing.T, _ *device, a []byte) []byte { return []byte("null") }},
		{name: "no type of credential", answer: func(_ *testing.T, _ *device, a []byte) []byte {
			return bytes.Replace(a, []byte(`"public-key"`), []byte(`"password"`), 1)
		}},
	} {
		t.Run("trap 48: "+c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mfa.Config{})
			d := w.registered(t, shop, w.ann, account.Passkey)
			if c.device != nil {
				c.device(d)
			}
			change := func(a []byte) []byte {
				if c.answer != nil {
					return c.answer(t, d, a)
				}
				return a
			}
			for _, name := range []string{"", "ann"} {
				id := w.ann.ID
				if name == "" {
					id = ""
				}
				q, err := w.BeginLogIn(t.Context(), shop, name, id)
				if err != nil {
					t.Fatal(err)
				}
				p, err := w.FinishLogIn(t.Context(), shop, q.Ticket, change(d.get(t, q)))
				refused(t, p, err, mfa.ErrWrong)
			}
			// The same for a new passkey; a changed client is not signed in
			// the attestation's place, but is refused before that.
			q, err := w.BeginRegister(t.Context(), shop, w.bob, account.Passkey)
			if err != nil {
				t.Fatal(err)
			}
			d.cred = newCredential()
			answer := d.create(t, q)
			if c.answer != nil {
				answer = c.answer(t, d, unattested(t, answer))
			}
			if _, err := w.FinishRegister(t.Context(), shop, w.bob.ID, account.Passkey, q.Ticket, "", answer); !errors.Is(err, mfa.ErrWrong) {
				t.Errorf("registered: %v", err)
			}
			if all, err := w.store.Factors(t.Context(), w.bob.ID); err != nil || len(all) != 0 {
				t.Errorf("%v, %v", all, err)
			}
		})
	}
}

// unattested replaces the device's own attestation by none, as browsers do,
// and gives the answer the fields that resign reads.
func unattested(t *testing.T, answer []byte) []byte {
	t.Helper()
	return objectOf(t, answer, func(authData []byte) []byte { return cborObject("none", nil, authData) })
}

// objectOf replaces the attestation object by what make makes of its
// authenticator data.
func objectOf(t *testing.T, answer []byte, make func(authData []byte) []byte) []byte {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(answer, &whole); err != nil {
		t.Fatal(err)
	}
	response := whole["response"].(map[string]any)
	object, err := base64.RawURLEncoding.DecodeString(response["attestationObject"].(string))
	if err != nil {
		t.Fatal(err)
	}
	_, authData, ok := bytes.Cut(object, []byte("hauthData"))
	if !ok || authData[0] != 0x58 { // a byte string with one byte of length
		t.Fatalf("%x", object)
	}
	authData = authData[2 : 2+int(authData[1])]
	response["attestationObject"] = base64.RawURLEncoding.EncodeToString(make(authData))
	response["authenticatorData"] = base64.RawURLEncoding.EncodeToString(authData)
	out, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// cborObject writes an attestation object, with more members put before.
func cborObject(format string, more, authData []byte) []byte {
	n := 3
	if more != nil {
		n++
	}
	b := append([]byte{0xa0 | byte(n)}, more...)
	b = append(b, 0x63, 'f', 'm', 't', 0x60|byte(len(format)))
	b = append(b, format...)
	b = append(b, 0x67, 'a', 't', 't', 'S', 't', 'm', 't', 0xa0)
	b = append(b, 0x68, 'a', 'u', 't', 'h', 'D', 'a', 't', 'a', 0x59, byte(len(authData)>>8), byte(len(authData)))
	return append(b, authData...)
}

func TestAttestation(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	register := func(t *testing.T, change func(authData []byte) []byte) error {
		t.Helper()
		d := newDevice(shop)
		q, err := w.BeginRegister(t.Context(), shop, w.ann, account.Passkey)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.FinishRegister(t.Context(), shop, w.ann.ID, account.Passkey, q.Ticket, "", objectOf(t, d.create(t, q), change))
		return err
	}
	t.Run("none is what is asked for", func(t *testing.T) {
		if err := register(t, func(a []byte) []byte { return cborObject("none", nil, a) }); err != nil {
			t.Error(err)
		}
	})
	long := bytes.Repeat([]byte{1}, 16<<10)
	for name, change := range map[string]func(a []byte) []byte{
		"a format with certificates":  func(a []byte) []byte { return cborObject("tpm", nil, a) },
		"fido-u2f":                    func(a []byte) []byte { return cborObject("fido-u2f", nil, a) },
		"a format that nobody knows":  func(a []byte) []byte { return cborObject("x", nil, a) },
		"packed without a signature":  func(a []byte) []byte { return cborObject("packed", nil, a) },
		"duplicate map keys":          func(a []byte) []byte { return cborObject("none", []byte("\x63fmt\x64none"), a) },
		"duplicate authData":          func(a []byte) []byte { return cborObject("none", append([]byte("\x68authData\x58\x25"), a[:37]...), a) },
		"indefinite length":           func(a []byte) []byte { return append([]byte{0xbf}, append(cborObject("none", nil, a)[1:], 0xff)...) },
		"large CBOR":                  func(a []byte) []byte { return cborObject("none", append([]byte("\x61x\x59\x40\x00"), long...), a) },
		"a length that is not there":  func([]byte) []byte { return []byte("\xa1\x61x\x5b\x7f\xff\xff\xff\xff\xff\xff\xff") },
		"an array of 2^31 that lies":  func([]byte) []byte { return []byte("\xa1\x61x\x9a\x7f\xff\xff\xff") },
		"nested 1,000 deep":           func([]byte) []byte { return bytes.Repeat([]byte{0x81}, 1000) },
		"something after the object":  func(a []byte) []byte { return append(cborObject("none", nil, a), 0) },
		"something after the key":     func(a []byte) []byte { return cborObject("none", nil, append(bytes.Clone(a), 0)) },
		"no credential":               func(a []byte) []byte { b := bytes.Clone(a[:37]); b[32] &^= 0x40; return cborObject("none", nil, b) },
		"a credential id that is cut": func(a []byte) []byte { return cborObject("none", nil, a[:60]) },
		"a credential id that is another": func(a []byte) []byte {
			b := bytes.Clone(a)
			b[60] ^= 1
			return cborObject("none", nil, b)
		},
		"a key that is no key": func(a []byte) []byte {
			return cborObject("none", nil, append(bytes.Clone(a[:87]), 0xa0))
		},
	} {
		t.Run("trap 48: "+name, func(t *testing.T) {
			wants(t, register(t, change), mfa.ErrWrong)
		})
	}
	t.Run("trap 48: certificates are not even looked at", func(t *testing.T) {
		err := register(t, func(a []byte) []byte {
			return bytes.Replace(cborObject("packed", nil, a), []byte("attStmt\xa0"), []byte("attStmt\xa3\x63alg\x26\x63sig\x41\x00\x63x5c\x81\x41\x00"), 1)
		})
		if !errors.Is(err, mfa.ErrWrong) || !strings.Contains(err.Error(), "nobody asked for") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("trap 48: a short credential id", func(t *testing.T) {
		d := newDevice(shop)
		d.cred.ID = d.cred.ID[:15]
		q, err := w.BeginRegister(t.Context(), shop, w.ann, account.Passkey)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.FinishRegister(t.Context(), shop, w.ann.ID, account.Passkey, q.Ticket, "", d.create(t, q))
		wants(t, err, mfa.ErrWrong)
	})
}

func TestTrap48Once(t *testing.T) {
	t.Run("trap 48: challenge reuse", func(t *testing.T) {
		w := newWorld(t, mfa.Config{})
		d, other := w.registered(t, shop, w.ann, account.Passkey), w.registered(t, shop, w.ann, account.Passkey)
		c, err := w.BeginLogIn(t.Context(), shop, "", "")
		if err != nil {
			t.Fatal(err)
		}
		answer := d.get(t, c)
		n := race(t, func() error { _, err := w.FinishLogIn(t.Context(), shop, c.Ticket, answer); return err }, account.ErrUsed)
		if n != 1 {
			t.Errorf("%d were let in", n)
		}
		// Nor is it good for another key, or at another replica.
		replica := open(t, mfa.Config{}, w.store, strings.Repeat("k", 32))
		p, err := replica.FinishLogIn(t.Context(), shop, c.Ticket, other.get(t, c))
		refused(t, p, err, account.ErrUsed)
	})
	t.Run("trap 48: a challenge that a wrong answer has spent", func(t *testing.T) {
		w := newWorld(t, mfa.Config{})
		d := w.registered(t, shop, w.ann, account.Passkey)
		c, err := w.BeginLogIn(t.Context(), shop, "", "")
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Replace(d.get(t, c), []byte(`"signature":"`), []byte(`"signature":"AAAA`), 1)
		p, err := w.FinishLogIn(t.Context(), shop, c.Ticket, bad)
		refused(t, p, err, mfa.ErrWrong)
		p, err = w.FinishLogIn(t.Context(), shop, c.Ticket, d.get(t, c))
		refused(t, p, err, account.ErrUsed)
	})
	t.Run("who only asks leaves nothing behind", func(t *testing.T) {
		m := newMemory()
		f := open(t, mfa.Config{}, m, strings.Repeat("k", 32))
		for range 100 {
			if _, err := f.BeginLogIn(t.Context(), shop, "", ""); err != nil {
				t.Fatal(err)
			}
		}
		if len(m.links) > 0 {
			t.Errorf("the store holds %d challenges that nobody has answered", len(m.links))
		}
	})
	t.Run("trap 48: an answer that made a passkey makes no second", func(t *testing.T) {
		w := newWorld(t, mfa.Config{})
		d := newDevice(shop)
		c, err := w.BeginRegister(t.Context(), shop, w.ann, account.Passkey)
		if err != nil {
			t.Fatal(err)
		}
		answer := d.create(t, c)
		finish := func() (account.Factor, error) {
			return w.FinishRegister(t.Context(), shop, w.ann.ID, account.Passkey, c.Ticket, "", answer)
		}
		fa, err := finish()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.RemoveFactor(t.Context(), w.ann.ID, fa.ID); err != nil {
			t.Fatal(err)
		}
		_, err = finish()
		wants(t, err, account.ErrUsed)
	})
	t.Run("trap 48: a ticket is good for one purpose, site, account and kind", func(t *testing.T) {
		w := newWorld(t, mfa.Config{})
		d := w.registered(t, shop, w.ann, account.Passkey)
		w.registered(t, shop, w.bob, account.Passkey)
		logIn, err := w.BeginLogIn(t.Context(), shop, "", "")
		if err != nil {
			t.Fatal(err)
		}
		second, err := w.BeginSecond(t.Context(), shop, w.ann.ID)
		if err != nil {
			t.Fatal(err)
		}
		register, err := w.BeginRegister(t.Context(), shop, w.ann, account.Passkey)
		if err != nil {
			t.Fatal(err)
		}
		for name, try := range map[string]func() error{
			"log-in elsewhere": func() error {
				_, err := w.FinishLogIn(t.Context(), wiki, logIn.Ticket, d.get(t, logIn))
				return err
			},
			"log-in by a second factor's": func() error {
				_, err := w.FinishLogIn(t.Context(), shop, second.Ticket, d.get(t, second))
				return err
			},
			"log-in by a registration's": func() error {
				_, err := w.FinishLogIn(t.Context(), shop, register.Ticket, d.get(t, register))
				return err
			},
			"second factor by a log-in's": func() error {
				_, err := w.FinishSecond(t.Context(), shop, w.ann.ID, logIn.Ticket, d.get(t, logIn))
				return err
			},
			"trap 47: second factor for another account": func() error {
				_, err := w.FinishSecond(t.Context(), shop, w.bob.ID, second.Ticket, d.get(t, second))
				return err
			},
			"registration for another account": func() error {
				_, err := w.FinishRegister(t.Context(), shop, w.bob.ID, account.Passkey, register.Ticket, "", newDevice(shop).create(t, register))
				return err
			},
			"registration of another kind": func() error {
				_, err := w.FinishRegister(t.Context(), shop, w.ann.ID, account.BySecurityKey, register.Ticket, "", newDevice(shop).create(t, register))
				return err
			},
			"registration elsewhere": func() error {
				_, err := w.FinishRegister(t.Context(), wiki, w.ann.ID, account.Passkey, register.Ticket, "", newDevice(wiki).create(t, register))
				return err
			},
		} {
			t.Run(name, func(t *testing.T) { wants(t, try(), mfa.ErrStale) })
		}
	})
}

func TestTrap48Owners(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	d := w.registered(t, shop, w.ann, account.Passkey)
	bobs := w.registered(t, shop, w.bob, account.Passkey)
	t.Run("trap 48: credential id registered by two users", func(t *testing.T) {
		for _, a := range []account.Account{w.bob, w.ann} {
			c, err := w.BeginRegister(t.Context(), shop, a, account.Passkey)
			if err != nil {
				t.Fatal(err)
			}
			copied := *d
			copied.cred.Key = newCredential().Key
			_, err = w.FinishRegister(t.Context(), shop, a.ID, account.Passkey, c.Ticket, "", copied.create(t, c))
			wants(t, err, account.ErrTaken)
		}
		p, err := w.logIn(t, d, shop, "", "")
		proves(t, p, err, w.ann, account.Passkey)
	})
	t.Run("trap 47: credential of another user", func(t *testing.T) {
		p, err := w.second(t, bobs, shop, w.ann.ID)
		refused(t, p, err, mfa.ErrWrong)
		p, err = w.logIn(t, bobs, shop, "ann", w.ann.ID)
		refused(t, p, err, mfa.ErrWrong)
	})
	t.Run("trap 48: userHandle mismatch", func(t *testing.T) {
		wrong := *d
		for _, handle := range [][]byte{bobs.auth.Options.UserHandle, []byte(w.ann.ID), {0}} {
			wrong.auth.Options.UserHandle = handle
			p, err := w.logIn(t, &wrong, shop, "", "")
			refused(t, p, err, mfa.ErrWrong)
			p, err = w.logIn(t, &wrong, shop, "ann", w.ann.ID)
			refused(t, p, err, mfa.ErrWrong)
			p, err = w.second(t, &wrong, shop, w.ann.ID)
			refused(t, p, err, mfa.ErrWrong)
		}
		wrong.auth.Options.UserHandle = nil
		p, err := w.logIn(t, &wrong, shop, "", "")
		refused(t, p, err, mfa.ErrWrong)
		p, err = w.logIn(t, &wrong, shop, "ann", w.ann.ID) // not needed where the account was named
		proves(t, p, err, w.ann, account.Passkey)
	})
	t.Run("trap 48: signature of another key", func(t *testing.T) {
		wrong := *d
		wrong.cred.Key = bobs.cred.Key
		p, err := w.logIn(t, &wrong, shop, "", "")
		refused(t, p, err, mfa.ErrWrong)
	})
	t.Run("trap 48: a key of another site that says it is of this one", func(t *testing.T) {
		other := w.registered(t, wiki, w.ann, account.Passkey)
		other.rp.ID, other.rp.Origin = "shop.example.com", shop
		p, err := w.logIn(t, other, shop, "", "")
		refused(t, p, err, mfa.ErrWrong)
	})
	t.Run("a passkey that was removed", func(t *testing.T) {
		gone := w.registered(t, shop, w.ann, account.Passkey)
		c, err := w.BeginLogIn(t.Context(), shop, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.RemoveFactor(t.Context(), w.ann.ID, base64.RawURLEncoding.EncodeToString(gone.cred.ID)); err != nil {
			t.Fatal(err)
		}
		p, err := w.FinishLogIn(t.Context(), shop, c.Ticket, gone.get(t, c))
		refused(t, p, err, mfa.ErrWrong)
	})
	t.Run("an id that is no passkey's", func(t *testing.T) {
		w.enrolled(t, w.ann)
		if _, err := w.NewRecoveryCodes(t.Context(), w.ann.ID); err != nil {
			t.Fatal(err)
		}
		all, err := w.store.Factors(t.Context(), w.ann.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, fa := range all {
			if _, err := base64.RawURLEncoding.DecodeString(fa.ID); (err == nil) != (fa.Kind == account.Passkey) {
				t.Errorf("%s could be a passkey's id: %s", fa.Kind, fa.ID)
			}
		}
	})
	t.Run("a row that is moved to another account proves nobody", func(t *testing.T) {
		id := base64.RawURLEncoding.EncodeToString(d.cred.ID)
		fa, err := w.store.Factor(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.RemoveFactor(t.Context(), w.ann.ID, id); err != nil {
			t.Fatal(err)
		}
		fa.Account = w.bob.ID
		if err := w.store.AddFactor(t.Context(), fa); err != nil {
			t.Fatal(err)
		}
		if p, err := w.logIn(t, d, shop, "", ""); err == nil || p.Account != "" || !strings.Contains(err.Error(), "was not sealed") {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

func TestTrap48Counter(t *testing.T) {
	for _, c := range []struct {
		counters []uint32 // the first is the registration's
		clone    bool     // the last is refused
	}{
		{[]uint32{0, 0, 0, 0}, false}, // synced: always 0
		{[]uint32{0, 1, 2, 9}, false},
		{[]uint32{7, 8, 1 << 31, 1<<32 - 1}, false},
		{[]uint32{7, 7}, true},
		{[]uint32{7, 6}, true},
		{[]uint32{7, 9, 8}, true},
		{[]uint32{0, 5, 5}, true},
		{[]uint32{7, 0}, true}, // Web Authentication Level 3, 7.2, step 22
	} {
		t.Run(fmt.Sprint("trap 48: counter regression ", c.counters), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mfa.Config{})
			d := newDevice(shop)
			d.cred.Counter = c.counters[0]
			w.register(t, d, w.ann, account.Passkey)
			for i, n := range c.counters[1:] {
				q, err := w.BeginLogIn(t.Context(), shop, "", "")
				if err != nil {
					t.Fatal(err)
				}
				o, err := virtualwebauthn.ParseAssertionOptions(string(q.Options))
				if err != nil {
					t.Fatal(err)
				}
				d.cred.Counter = n
				p, err := w.FinishLogIn(t.Context(), shop, q.Ticket, []byte(virtualwebauthn.CreateAssertionResponse(d.rp, d.auth, d.cred, *o)))
				if clone := c.clone && i == len(c.counters)-2; clone != errors.Is(err, mfa.ErrCloned) || !clone && err != nil {
					t.Errorf("%d: %v", n, err)
				}
				if p.Account != w.ann.ID || (p.Method == "") != (err != nil) {
					t.Errorf("it is not told whose key it is, or taken for a proof: %+v", p)
				}
			}
			fa, err := w.store.Factor(t.Context(), base64.RawURLEncoding.EncodeToString(d.cred.ID))
			last := c.counters[len(c.counters)-1]
			if err != nil || (fa.Counter == int64(last)) == (c.clone && last != c.counters[len(c.counters)-2]) {
				t.Errorf("the counter is %d, %v", fa.Counter, err)
			}
		})
	}
	t.Run("a synced passkey stays one", func(t *testing.T) {
		w := newWorld(t, mfa.Config{})
		d := newDevice(shop)
		d.auth.Options.BackupEligible, d.auth.Options.BackupState = true, true
		w.register(t, d, w.ann, account.Passkey)
		p, err := w.logIn(t, d, shop, "", "")
		proves(t, p, err, w.ann, account.Passkey)
		if _, _, synced, err := w.Describe(p.Factor); err != nil || !synced {
			t.Errorf("%v, %v", synced, err)
		}
		d.auth.Options.BackupEligible, d.auth.Options.BackupState = false, false
		p, err = w.logIn(t, d, shop, "", "")
		refused(t, p, err, mfa.ErrWrong)
	})
}
