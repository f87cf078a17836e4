package redis_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/test/redistest"
)

// A request that is counted by many values of a field asks for more at once
// than goes into a batch. It must not look as if the server were lost.
func TestManyAsksAtOnce(t *testing.T) {
	_, at := redistest.OnSocket(t)
	l := limits(t, at)
	const n = 300
	asks, res := make([]count.Ask, n), make([]count.Result, n)
	for i := range asks {
		asks[i] = hourly("many"+strconv.Itoa(i), 2, 1)
	}
	for try := range 3 {
		if err := l.Take(t.Context(), asks, res, time.Now()); err != nil {
			t.Fatal(err)
		}
		for i := range res {
			if res[i].OK != (try < 2) {
				t.Fatalf("take %d, ask %d: %+v", try, i, res[i])
			}
		}
	}
	// One that has nothing left gives all others back, those of other batches too.
	asks[n-1] = hourly("empty", 1, 1)
	if !takes(t, l, asks[n-1]) {
		t.Fatal("it is not empty before")
	}
	for i := range n - 1 {
		asks[i] = hourly("more"+strconv.Itoa(i), 1, 1)
	}
	if err := l.Take(t.Context(), asks, res, time.Now()); err != nil || res[n-1].OK {
		t.Fatal(err, res[n-1])
	}
	if !takes(t, l, asks[0]) || !takes(t, l, asks[n-2]) {
		t.Error("what was granted beside a refusal was not given back")
	}
	if err := l.Add(t.Context(), asks, time.Now()); err != nil {
		t.Error(err)
	}
}

// Places in many keys are taken in one step: one after the other, they would
// take longer than a request waits.
func TestManyPlacesAtOnce(t *testing.T) {
	const away, n = 50 * time.Millisecond, 30
	_, at := redistest.OnSocket(t)
	near, l := limits(t, at), limits(t, far(t, at, away))
	places := make([]count.Place, n)
	for i := range places {
		places[i] = count.Place{Key: count.Key("place" + strconv.Itoa(i)), Most: 2}
	}
	begin := time.Now()
	full, release, err := l.Hold(t.Context(), places)
	if took := time.Since(begin); full != -1 || err != nil || took > n/3*away {
		t.Fatalf("%d %v after %s", full, err, took)
	}
	last := places[n-1:]
	if full, _, err := near.Hold(t.Context(), last); full != -1 || err != nil {
		t.Fatal(full, err)
	}
	// The last is full: none of the others is held then.
	for range 3 {
		if full, _, err := near.Hold(t.Context(), places); full != n-1 || err != nil {
			t.Fatal(full, err)
		}
	}
	release()
	if full, _, err := near.Hold(t.Context(), places[:1]); full != -1 || err != nil {
		t.Error(full, err)
	}
	if full, _, err := near.Hold(t.Context(), places); full != -1 || err != nil {
		t.Error(full, err)
	}
}
