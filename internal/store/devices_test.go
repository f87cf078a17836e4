package store_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/store"
)

// Every log-in without a cookie is a new browser. They do not add up.
func TestAHundredDevicesAreKnown(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Accounts()
		create(t, s, named("ann"), named("bob"))
		device := func(i int) account.Device {
			at := noon.Add(time.Duration(i) * time.Minute)
			return account.Device{Hash: binary.BigEndian.AppendUint32(nil, uint32(i)), Account: "id-ann", Created: at, Used: at}
		}
		bobs := device(0)
		bobs.Account = "id-bob"
		wants(t, "know", s.KnowDevice(ctx, bobs), nil)
		home := device(0)
		for i := range 130 {
			wants(t, "know", s.KnowDevice(ctx, device(i)), nil)
			home.Used = noon.Add(time.Duration(i)*time.Minute + time.Second)
			wants(t, "know again", s.KnowDevice(ctx, home), nil)
		}
		list, err := s.Devices(ctx, "id-ann")
		wants(t, "devices", err, nil)
		if len(list) != 100 || !list[0].Used.Equal(home.Used) {
			t.Errorf("%d devices are known, the last used at %v", len(list), list[0].Used)
		}
		_, err = s.Device(ctx, "id-ann", device(1).Hash)
		wants(t, "one that was used long ago", err, account.ErrNotFound)
		for who, d := range map[string]account.Device{"id-ann": home, "id-bob": bobs} {
			if _, err := s.Device(ctx, who, d.Hash); err != nil {
				t.Errorf("what %s uses is forgotten: %v", who, err)
			}
		}
	})
}
