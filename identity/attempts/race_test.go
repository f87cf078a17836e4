//go:build race

package attempts_test

// scale is how many times less is simulated: the race detector makes each step
// twenty times slower.
const scale = 10
