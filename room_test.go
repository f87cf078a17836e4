package merlon_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
)

func post(body string) *merlon.Request {
	hr, err := http.NewRequest(http.MethodPost, "http://a.example/", io.NopCloser(strings.NewReader(body)))
	if err != nil {
		panic(err)
	}
	hr.ContentLength = int64(len(body))
	return merlon.NewRequest(hr)
}

func TestRoomIsSharedAndGivenBack(t *testing.T) {
	room := merlon.NewRoom(100)
	text := strings.Repeat("x", 60)
	first, second := post(text), post(text)
	first.Room, second.Room = room, room
	if _, whole, err := first.Peek(80); !whole || err != nil {
		t.Fatal(whole, err)
	}
	_, _, err := second.Peek(80)
	if !errors.Is(err, merlon.ErrNoRoom) {
		t.Fatal(err)
	}
	d := merlon.BodyFailed(err)
	if d.Passed() || d.Code() != http.StatusServiceUnavailable || d.Reason != merlon.MemoryFull || d.Header.Get("Retry-After") == "" {
		t.Errorf("%+v", d)
	}
	// Who looks again takes nothing more, and who ends gives all of it back, once.
	if _, whole, err := first.Peek(80); !whole || err != nil {
		t.Error(whole, err)
	}
	first.Release()
	first.Release()
	third, fourth := post(text), post(text)
	third.Room, fourth.Room = room, room
	if _, whole, err := third.Peek(80); !whole || err != nil {
		t.Error(whole, err)
	}
	if _, _, err := fourth.Peek(80); !errors.Is(err, merlon.ErrNoRoom) {
		t.Errorf("room was given back twice: %v", err)
	}
	// What is refused can still be read to its end by whoever has to.
	if b, err := io.ReadAll(fourth.Body); string(b) != text || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
