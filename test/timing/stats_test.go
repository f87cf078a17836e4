package main

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// The example of Welch's test with unequal sizes and variances that is in many
// textbooks; t is there to two digits.
func TestWelch(t *testing.T) {
	a := []float64{27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4}
	b := []float64{27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.0, 23.9}
	diff, _, got := welch(a, b)
	if math.Abs(got+2.8) > 0.06 || diff > 0 {
		t.Errorf("t = %.3f, difference %.3f", got, diff)
	}
	if _, _, back := welch(b, a); back != -got {
		t.Errorf("t = %v one way and %v the other", got, back)
	}
	same := []float64{5, 5, 5}
	if _, _, got := welch(same, same); got != 0 {
		t.Errorf("t = %v of what is the same", got)
	}
	if _, _, got := welch(same, []float64{6, 6, 6}); !math.IsInf(got, -1) {
		t.Errorf("t = %v of what always differs", got)
	}
}

// times are such as a busy machine gives: most close to one value, some far
// above.
func times(r *rand.Rand, n int, base time.Duration) []time.Duration {
	v := make([]time.Duration, n)
	for i := range v {
		v[i] = base + time.Duration(r.ExpFloat64()*float64(200*time.Microsecond))
		if r.IntN(20) == 0 {
			v[i] += time.Duration(r.ExpFloat64() * float64(50*time.Millisecond))
		}
	}
	return v
}

func TestCompare(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	wrong := 0
	for range 200 {
		if c := compare(times(r, 2000, 15*time.Millisecond), times(r, 2000, 15*time.Millisecond), 4.5, 0); math.Abs(c.t) > 4.5 {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of 200 pairs that are alike were told apart", wrong)
	}
	for range 20 {
		c := compare(times(r, 2000, 15*time.Millisecond), times(r, 2000, 15*time.Millisecond-50*time.Microsecond), 4.5, 0)
		if c.t < 4.5 || c.diff < 20*time.Microsecond || c.diff > 80*time.Microsecond {
			t.Errorf("50 µs among outliers of 50 ms: %+v", c)
		}
		if c.least > 50*time.Microsecond {
			t.Errorf("it says that it sees no better than %v", c.least)
		}
	}
	for range 20 {
		a, b := times(r, 2000, 15*time.Millisecond), times(r, 2000, 15*time.Millisecond-50*time.Microsecond)
		if c := compare(a, b, 4.5, 100*time.Microsecond); math.Abs(c.t) > 4.5 {
			t.Errorf("50 µs where 100 are granted: %+v", c)
		}
	}
	if c := compare(times(r, 300, 15*time.Millisecond), times(r, 300, 10*time.Microsecond), 4.5, 0); c.t < 4.5 {
		t.Errorf("an early return is not seen: %+v", c)
	}
	if c := compare(times(r, fewest-1, time.Millisecond), times(r, 1000, time.Second), 4.5, 0); c != (comparison{}) {
		t.Errorf("too few tries: %+v", c)
	}
	if c := compare(nil, nil, 4.5, 0); c != (comparison{}) {
		t.Errorf("no tries: %+v", c)
	}
}

func TestQuantile(t *testing.T) {
	v := []time.Duration{5, 1, 4, 2, 3}
	if quantile(v, 0) != 1 || quantile(v, 0.5) != 3 || quantile(v, 1) != 5 || quantile(nil, 0.5) != 0 {
		t.Error("the quantiles of 1 to 5 are wrong")
	}
}
