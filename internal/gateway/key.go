package gateway

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/merlon-dev/merlon/secrets"
)

// keyFile is the key's name in the data folder.
const keyFile = "merlon.key"

// openKey reads the key, or makes one.
func openKey(ref secrets.Ref, data string) (secrets.Key, error) {
	if ref == "" {
		if err := makeKey(filepath.Join(data, keyFile)); err != nil {
			return secrets.Key{}, err
		}
	}
	text, err := keyRef(ref, data).Resolve()
	if err != nil {
		return secrets.Key{}, err
	}
	return secrets.NewKey(text)
}

// keyRef is where the key is, or is going to be.
func keyRef(ref secrets.Ref, data string) secrets.Ref {
	if ref == "" {
		return secrets.Ref("file:" + filepath.Join(data, keyFile))
	}
	return ref
}

// makeKey writes a new key, unless there is one. Of two processes that start at
// once both use the one that was there first.
func makeKey(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b := make([]byte, secrets.MinKey)
	rand.Read(b) // never fails
	tmp, err := os.CreateTemp(filepath.Dir(path), keyFile+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(base64.RawURLEncoding.EncodeToString(b) + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
