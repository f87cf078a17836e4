package engine

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// A cache remembers values that are known to trigger nothing. It compares
// whole values, so a collision costs time, never a verdict. A value is kept
// when it comes for the second time: most values never do, and those must not
// take the place of others that come all the time.
type cache struct {
	tags  [cacheSlots]atomic.Uint32 // of the value that is kept, and above it of the one that came last
	slots [cacheSlots]atomic.Pointer[known]
}

const (
	cacheSlots = 1 << 14
	cacheValue = 512 // the longest value that is kept in any slot
	// Longer values, such as pages that are the same for everybody, have few
	// slots: 4 MiB together.
	longSlots = 1 << 8
	longValue = 16 << 10
)

type known struct {
	class    int
	key, val string
}

// is reports whether this is the value.
func (k *known) is(class int, key, val string) bool {
	return k.class == class && k.val == val && k.key == key
}

// A place is where a value is, or may be kept.
type place struct {
	hit  *known // nil if the value is not known
	slot int    // negative: nowhere
	tag  uint32 // 16 bits, not 0
}

// recent is what a transaction found last at each position of a message: most
// of a request is as it was in the one before. It points to what the cache
// holds, so that it needs no room and no hash.
type recent [1 << 8]*known

func (r *recent) at(class, position int) **known { return &r[(class*31+position)%len(r)] }

var seed = maphash.MakeSeed()

// find looks a value up. Two slots can have it.
func (c *cache) find(class int, key, val string) place {
	slots := uint64(cacheSlots)
	switch n := len(key) + len(val); {
	case n > longValue:
		return place{slot: -1}
	case n > cacheValue:
		slots = longSlots
	}
	h := maphash.String(seed, val) ^ uint64(class)*0x9E3779B97F4A7C15
	if key != "" {
		h ^= maphash.String(seed, key) * 0x9E3779B97F4A7C15
	}
	n, tag := int(h&(slots-1)), uint32(h>>48)|1 // there are a power of two
	for _, slot := range [...]int{n, n ^ 1} {
		if c.tags[slot].Load()&0xFFFF != tag {
			continue
		}
		if k := c.slots[slot].Load(); k != nil && k.is(class, key, val) {
			return place{hit: k}
		}
	}
	return place{slot: n, tag: tag}
}

// keep remembers a value, at its second time.
func (c *cache) keep(p place, class int, key, val string) {
	if p.slot < 0 {
		return
	}
	tags := c.tags[p.slot].Load()
	if tags>>16 != p.tag {
		c.tags[p.slot].Store(p.tag<<16 | tags&0xFFFF)
		return
	}
	slot := p.slot
	if tags&0xFFFF != 0 && (c.tags[slot^1].Load()&0xFFFF == 0 || p.tag&2 != 0) {
		slot ^= 1
	}
	c.slots[slot].Store(&known{class, strings.Clone(key), strings.Clone(val)})
	c.tags[slot].Store(c.tags[slot].Load()&^0xFFFF | p.tag)
}
