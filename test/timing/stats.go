package main

import (
	"math"
	"slices"
	"time"
)

// welch returns by how much the mean of a is above that of b, the standard
// error of that, and Welch's t, which is the one in units of the other. With
// hundreds of each, t beyond ±4.5 comes by chance once in 150,000 tests.
//
// A library for these lines would be larger than what it is for.
func welch(a, b []float64) (diff, err, t float64) {
	ma, va := moments(a)
	mb, vb := moments(b)
	diff, err = ma-mb, math.Sqrt(va/float64(len(a))+vb/float64(len(b)))
	switch {
	case err > 0:
		return diff, err, diff / err
	case diff == 0:
		return 0, 0, 0
	}
	return diff, 0, math.Copysign(math.Inf(1), diff)
}

// moments are the mean and the variance of a sample.
func moments(v []float64) (mean, variance float64) {
	for _, x := range v {
		mean += x
	}
	mean /= float64(len(v))
	for _, x := range v {
		variance += (x - mean) * (x - mean)
	}
	return mean, variance / float64(len(v)-1)
}

// crops are the shares of all times, the shortest, that are compared. What a
// busy machine adds is mostly in the longest, where it hides differences
// (dudect: Reparaz, Balasch, Verbauwhede 2017).
var crops = []float64{1, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25}

// fewest is how many times of each kind a comparison needs.
const fewest = 50

// A comparison is how two kinds of tries differ in time.
type comparison struct {
	t    float64       // the largest, of all crops
	crop float64       // where
	diff time.Duration // of the means there
	// least is the smallest difference that would have been found, in the crop
	// with the least noise: how far the machine lets us see.
	least time.Duration
}

// compare compares the times of two kinds, as they are and without the
// longest of both together. Its t is that of the hypothesis that they differ
// by no more than what is granted. The zero comparison: there are too few.
func compare(a, b []time.Duration, bound float64, granted time.Duration) comparison {
	all := slices.Sorted(slices.Values(slices.Concat(a, b)))
	var c comparison
	for _, share := range crops {
		if len(all) == 0 {
			break
		}
		limit := all[max(0, int(share*float64(len(all)))-1)]
		x, y := upTo(a, limit), upTo(b, limit)
		if len(x) < fewest || len(y) < fewest {
			// That so few of one kind are among the shortest is a difference,
			// too: the larger crops tell of it.
			continue
		}
		diff, err, t := welch(x, y)
		if over := math.Abs(diff) - float64(granted); over <= 0 {
			t = 0
		} else if err > 0 {
			t = math.Copysign(over/err, diff)
		}
		if c.crop == 0 || math.Abs(t) > math.Abs(c.t) {
			c.t, c.crop, c.diff = t, share, time.Duration(diff)
		}
		if see := granted + time.Duration(bound*err); c.least == 0 || see < c.least {
			c.least = see
		}
	}
	return c
}

// upTo returns the times that are no longer than a limit.
func upTo(v []time.Duration, limit time.Duration) []float64 {
	var kept []float64
	for _, d := range v {
		if d <= limit {
			kept = append(kept, float64(d))
		}
	}
	return kept
}

// quantile of times.
func quantile(v []time.Duration, q float64) time.Duration {
	if len(v) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(v))[int(q*float64(len(v)-1))]
}
