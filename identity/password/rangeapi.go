package password

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
)

const (
	minRange, maxRange = 100 * time.Millisecond, 10 * time.Second
	defaultRange       = 2 * time.Second
	// maxAnswer is far more than there are passwords with one prefix.
	maxAnswer = 1 << 20
	// pauseAfter is how long a service that has failed is left alone, so that
	// one that hangs does not slow every log-in.
	pauseAfter = 30 * time.Second
	prefixHex  = 5
)

// rangeAPI asks a service about SHA-1 sums without showing it any: it names
// the first 20 bits and gets all sums that begin so.
type rangeAPI struct {
	base    string
	client  *http.Client
	timeout time.Duration
	now     func() time.Time

	mu     sync.Mutex
	paused time.Time // until when
}

func newRangeAPI(c Config, bad func(setting, value, rule string)) *rangeAPI {
	a := &rangeAPI{timeout: c.RangeTimeout, now: time.Now}
	if a.timeout == 0 {
		a.timeout = defaultRange
	} else if a.timeout < minRange || a.timeout > maxRange {
		bad("range_timeout", a.timeout.String(), "must be from 100ms to 10s")
	}
	if c.RangeAPI == "" {
		return nil
	}
	u, err := url.Parse(c.RangeAPI)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		bad("range_api", c.RangeAPI, "must be an address such as https://api.pwnedpasswords.com/range/, with https except on loopback")
		return nil
	}
	a.base = strings.TrimSuffix(u.String(), "/") + "/"
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.MaxConnsPerHost = 4, 16
	a.client = &http.Client{
		Transport: t,
		// A redirect would tell somebody else what is asked about.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return a
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

var errPaused = errors.New("range_api has failed a moment ago and is not asked for 30 seconds")

// contains asks whether the service knows a sum. The errors hold none of it.
func (a *rangeAPI) contains(ctx context.Context, sum [sha1.Size]byte) (bool, error) {
	a.mu.Lock()
	paused := a.now().Before(a.paused)
	a.mu.Unlock()
	if paused {
		return false, errPaused
	}
	lost, err := a.ask(ctx, strings.ToUpper(hex.EncodeToString(sum[:])))
	if err == nil {
		return lost, nil
	}
	if ctx.Err() == nil {
		a.mu.Lock()
		a.paused = a.now().Add(pauseAfter)
		a.mu.Unlock()
	}
	// What net/http says names the address, and with it a part of the sum.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return false, fmt.Errorf("range_api: %w", err)
}

func (a *rangeAPI) ask(ctx context.Context, sum string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+sum[:prefixHex], nil)
	if err != nil {
		return false, err
	}
	// Without padding the length of an encrypted answer tells which it is.
	req.Header.Set("Add-Padding", "true")
	req.Header.Set("User-Agent", "merlon")
	res, err := a.client.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("answered %s", res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return false, err
	}
	if len(body) > maxAnswer {
		return false, fmt.Errorf("answered more than %s", merlon.Size(maxAnswer))
	}
	return inRange(body, sum[prefixHex:])
}

// inRange reads lines "SUFFIX:COUNT". All of them are read, so that the time
// does not tell where a sum stood. Padding has the count 0.
func inRange(answer []byte, suffix string) (found bool, err error) {
	for text := range bytes.Lines(answer) {
		line, err := readLine(text, len(suffix))
		if err != nil {
			return false, fmt.Errorf("answered something else: %w", err)
		}
		if !line.empty && line.count > 0 && strings.EqualFold(string(line.hex), suffix) {
			found = true
		}
	}
	return found, nil
}
