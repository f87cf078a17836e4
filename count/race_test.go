//go:build race

package count_test

const raceEnabled = true
