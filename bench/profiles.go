package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// profileLength is how long each profile is taken.
const profileLength = 3 * time.Second

// profiles writes a CPU profile of each flood into a folder.
func (g *refusing) profiles(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, kind := range refusedKinds() {
		t := g.target(kind.at)
		if t.admin == "" {
			continue
		}
		for _, way := range protocols() {
			file := filepath.Join(dir, strings.NewReplacer(" ", "-", ":", "", ",", "", "/", "").Replace(kind.name+" "+way.name)+".pprof")
			fmt.Fprintf(os.Stderr, "\r%-110s", file)
			done := make(chan error, 1)
			go func() { done <- t.profile(file) }()
			if _, err := t.flood(ctx, kind, way, profileLength+200*time.Millisecond); err != nil {
				return err
			}
			if err := <-done; err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(os.Stderr, "\r%110s\r", "")
	return nil
}

func (t *target) profile(file string) error {
	res, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", t.admin, int(profileLength.Seconds())))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("no profile: %s", res.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}
