package engine

import "testing"

// What folding leaves of the CRS 4.25 at paranoia level 1, with one action of
// the set-up. The numbers change with the CRS; that they stay small is what
// makes the engine cheap.
func TestStructure(t *testing.T) {
	e := native(t, sources(1))
	want := [5]struct{ loaded, unreached, constant, dependent int }{
		1: {177, 61, 69, 47},
		2: {290, 125, 48, 117},
		3: {43, 17, 26, 0},
		4: {109, 20, 27, 62},
	}
	for phase, s := range e.structure {
		w := want[phase]
		if s.loaded != w.loaded || s.unreached() != w.unreached || s.constant+s.derived != w.constant || s.dependent != w.dependent {
			t.Errorf("phase %d: %+v, unreached %d", phase, s, s.unreached())
		}
	}
}
