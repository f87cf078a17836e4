package session

import (
	"net/http"
	"time"
)

// SetNow puts another clock into m, before m is used.
func (m *Manager) SetNow(now func() time.Time) { m.now = now }

// Live returns how many sessions are known at the moment.
func (m *Manager) Live() int {
	n := 0
	for i := range m.live.shard {
		sh := &m.live.shard[i]
		sh.mu.RLock()
		n += len(sh.entries)
		sh.mu.RUnlock()
	}
	return n
}

func ByPerson(hr *http.Request) bool { return byPerson(hr) }

func HashOf(h http.Header) (Hash, error) { return hashOf(h) }

const PerShard = perShard
