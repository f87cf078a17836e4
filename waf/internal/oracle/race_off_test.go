//go:build !race

package oracle_test

const raced = false
