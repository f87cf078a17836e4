package gateway_test

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/ledger"
)

// Who has very many addresses has each of them banned with a single request.
// The events about that are counted at last, as those of other floods are.
func TestAFloodOfBansDoesNotFillTheLog(t *testing.T) {
	const clients = 6000
	f := read(t, local+shop, newBackend(t, "app"))
	s := serve(t, f)
	for i := range clients {
		hr := httptest.NewRequest("GET", "https://shop.example.com/.env", nil)
		hr.RemoteAddr = fmt.Sprintf("[2001:db8:%x::1]:4711", i)
		s.Gateway().ServeHTTP(httptest.NewRecorder(), hr)
	}
	s.Gateway().Close(t.Context())
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines, bans := 0, uint64(0)
	for e, err := range ledger.Query(f.Data, ledger.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Reason == ban.Imposed {
			lines++
			bans += max(e.Count, 1)
		}
	}
	if bans != clients || lines > clients*3/4 {
		t.Errorf("%d clients were banned: %d, by %d events", clients, bans, lines)
	}
}
