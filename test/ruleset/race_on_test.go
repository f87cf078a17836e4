//go:build race

package ruleset_test

const raced = true
