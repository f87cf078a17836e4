package certs

// Leaves is how many leafs a local CA keeps in memory.
func Leaves(ca *LocalCA) int {
	ca.leaves.mu.Lock()
	defer ca.leaves.mu.Unlock()
	if ca.leaves.order.Len() != len(ca.leaves.byName) {
		return -1
	}
	return ca.leaves.order.Len()
}

// MaxLeaves is the most that Leaves may be.
const MaxLeaves = maxLeaves

// HostName and RequestHost are the parsers of names from outside.
var (
	HostName    = hostName
	RequestHost = requestHost
)
