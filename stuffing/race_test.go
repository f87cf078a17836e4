//go:build race

package stuffing_test

// thin is how much smaller attacks are where each try takes long.
const thin = 20
