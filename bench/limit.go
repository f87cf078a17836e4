package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
)

// limitName is what -only calls what counting and refusing cost.
const limitName = "limit"

// The processes that runLimit starts of this program.
const (
	decideMode = "limit"
	countMode  = "serve-counting"
)

// runLimit measures what a decision costs in process, in a process of its own,
// then over Redis, and then what is refused through whole gateways.
func runLimit(ctx context.Context, o options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, decideMode, strconv.Itoa(o.rounds), (o.each / 10).String())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	if err := runCounting(ctx, o); err != nil {
		return err
	}
	fmt.Println()
	return runRefusals(ctx, o)
}
