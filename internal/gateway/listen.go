package gateway

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// unsent is how much of an answer the kernel takes in advance, on every
// connection of a listener. By default it takes some MiB, which clients that do
// not read could fill by the hundred, and slow_grace would not see them.
const unsent = 128 << 10

// listen opens a TCP listener that a second Merlon of the same user may open
// too (SO_REUSEPORT), so that a new one can take over from a running one
// without a moment in which nobody answers.
func listen(ctx context.Context, addr string) (*net.TCPListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		err := c.Control(func(fd uintptr) {
			serr = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent))
		})
		if err != nil {
			return err
		}
		return serr
	}}
	// MPTCP sockets cannot be steered (see yield), and nothing in front of
	// a backend needs them.
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil
}

// settle is how long a listener that has yielded goes on accepting what the
// kernel had already given it.
const settle = 250 * time.Millisecond

// yield steers new connections to the other sockets of the port, if there are
// any. Connections that are in a listener's queue when it closes are reset by
// the kernel; after yield and settle the queue is empty. The program answers
// "the second socket": the listener that was opened after this one. Where
// there is none, the kernel ignores it.
func yield(ln *net.TCPListener) error {
	prog, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 1}})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if err != nil {
		return err
	}
	return serr
}
