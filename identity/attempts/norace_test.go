//go:build !race

package attempts_test

const scale = 1
