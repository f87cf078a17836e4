package attempts_test

import (
	"testing"

	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/attempts/attemptstest"
)

func inMemory(_ *testing.T, n int) []attempts.Store {
	one := attempts.NewMemory(1 << 12)
	stores := make([]attempts.Store, n)
	for i := range stores {
		stores[i] = one
	}
	return stores
}

func TestMemory(t *testing.T) { attemptstest.TestStore(t, inMemory) }

func TestMemoryAtOnce(t *testing.T) { attemptstest.TestReplicas(t, inMemory) }
