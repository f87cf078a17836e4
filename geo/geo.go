// Package geo tells from databases in MaxMind's format which country and which
// network an address is registered in.
//
// It says where an address is registered, not where somebody is, and comes
// without a database. Lookups take no lock and allocate little.
package geo

import (
	"errors"
	"net/netip"
	"os"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/merlon-dev/merlon"
)

// A DB is one or several databases; of what two of them know, the first counts.
// The nil DB knows nothing.
type DB struct {
	readers []*maxminddb.Reader
}

// maxFile is the largest database that is read.
const maxFile = 512 * merlon.MiB

// Open reads databases into memory, each at most 512 MiB. The error is of the
// first that cannot be used, whose number it returns.
func Open(paths ...string) (db *DB, bad int, err error) {
	db = &DB{}
	for i, path := range paths {
		r, err := open(path)
		if err != nil {
			return nil, i, err
		}
		db.readers = append(db.readers, r)
	}
	return db, 0, nil
}

func open(path string) (*maxminddb.Reader, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if merlon.Size(info.Size()) > maxFile {
		return nil, errors.New("is larger than " + maxFile.String())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return maxminddb.OpenBytes(b)
}

// record is what the databases say that MaxMind and others publish.
type record struct {
	Country struct {
		ISO string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	Code string `maxminddb:"country_code"`
	ASN  uint   `maxminddb:"autonomous_system_number"`
}

// find returns the first record that is good.
func (db *DB) find(a netip.Addr, good func(*record) bool) record {
	if db == nil || !a.IsValid() {
		return record{}
	}
	for _, r := range db.readers {
		var rec record
		if err := r.Lookup(a.Unmap()).Decode(&rec); err == nil && good(&rec) {
			return rec
		}
	}
	return record{}
}

// Country returns two letters (ISO 3166-1), or nothing if it is not known.
func (db *DB) Country(a netip.Addr) string {
	rec := db.find(a, func(r *record) bool { return r.Country.ISO != "" || r.Code != "" })
	if rec.Country.ISO != "" {
		return rec.Country.ISO
	}
	return rec.Code
}

// ASN returns the number of the network that announces the address, or 0.
func (db *DB) ASN(a netip.Addr) uint {
	return db.find(a, func(r *record) bool { return r.ASN != 0 }).ASN
}
