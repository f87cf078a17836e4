//go:build unix

package certs

import (
	"errors"
	"io/fs"
)

// private refuses a key file that others than its owner have access to.
func private(info fs.FileInfo, group bool) error {
	switch perm := info.Mode().Perm(); {
	case perm&0o007 != 0:
		return errors.New("must not be accessible to others (chmod 600)")
	case perm&0o070 != 0 && !group:
		return errors.New("must not be accessible to its group (chmod 600, or set group_readable: true)")
	case perm&0o030 != 0:
		return errors.New("must not be writable by its group (chmod 640)")
	}
	return nil
}
