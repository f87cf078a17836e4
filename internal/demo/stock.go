package demo

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"database/sql"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed stock.sql
var stockSQL string

// A user is a row of the users table.
type user struct {
	Username, Name, Email, Address, Role string
	Password                             string // HOLE (deliberate): an MD5 hash without salt
	Balance                              cents
}

// cents is an amount of money.
type cents int64

func (c cents) String() string {
	sign := ""
	if c < 0 {
		sign, c = "-", -c
	}
	return fmt.Sprintf("%s€%d.%02d", sign, c/100, c%100)
}

// firstUsers have passwords in the clear here, because whoever tries the demo
// should be able to log in.
var firstUsers = []user{
	{Username: "admin", Name: "The shopkeeper", Email: "admin@gull-and-kettle.example", Address: "1 Quay Street, Dingle", Role: "admin", Password: "lighthouse-keeper-61", Balance: 9842000},
	{Username: "ann", Name: "Ann Fletcher", Email: "ann.fletcher@mail.example", Address: "14 Rope Walk, Kinsale", Role: "member", Password: "sunshine", Balance: 24050},
	{Username: "bob", Name: "Bob Achebe", Email: "bob.achebe@mail.example", Address: "Flat 3, 70 Strand Road, Sligo", Role: "member", Password: "dragon", Balance: 8300},
	{Username: "mallory", Name: "Mallory", Email: "mallory@evil.example", Address: "PO Box 13", Role: "member", Password: "correct horse battery staple", Balance: 100},
}

// crew are members whose passwords somebody guesses, buys or has leaked.
var crew = []user{
	{Username: "aoife", Name: "Aoife Byrne", Address: "2 Coal Quay, Cobh", Password: "peat-smoke-and-rain"},
	{Username: "brendan", Name: "Brendan Foley", Address: "9 Main Street, Dingle", Password: "nine-white-horses"},
	{Username: "ciara", Name: "Ciara Nolan", Address: "31 Shop Street, Galway", Password: "seven-blue-kettles"},
	{Username: "declan", Name: "Declan Roche", Address: "5 The Mall, Youghal", Password: "old-harbour-wall"},
	{Username: "eimear", Name: "Eimear Daly", Address: "12 Bridge Street, Westport", Password: "heather-on-the-hill"},
	{Username: "fergus", Name: "Fergus Kane", Address: "7 Strand Street, Skerries", Password: "lobster-pot-eleven"},
	{Username: "grainne", Name: "Gráinne Walsh", Address: "3 Pier Road, Kinsale", Password: "gannets-over-skellig"},
	{Username: "hugh", Name: "Hugh Moran", Address: "18 O'Connell Street, Ennis", Password: "turf-stack-winter"},
	{Username: "maeve", Name: "Maeve Lynch", Address: "22 Castle Street, Tralee", Password: "storm-teapot-1987"},
	{Username: "niall", Name: "Niall Carey", Address: "6 High Street, Kilkenny", Password: "marble-city-hurler"},
	{Username: "orla", Name: "Orla Quinn", Address: "41 Patrick Street, Cork", Password: "butter-market-bell"},
	{Username: "sorcha", Name: "Sorcha Ryan", Address: "8 Church Lane, Sligo", Password: guessed + "42"},
	{Username: "tadhg", Name: "Tadhg Healy", Address: "1 Lighthouse Road, Fanad", Password: sprayed},
}

// Passwords that somebody guesses: words that everybody there knows with a
// number, and what half the harbour uses.
const (
	guessed = "gull-and-kettle-"
	sprayed = "dingle-regatta-2026"
)

// hashPassword is a HOLE (deliberate): MD5 is so fast that a list of common
// passwords is tried in a moment, and without salt all at once.
func hashPassword(password string) string {
	sum := md5.Sum([]byte(password))
	return hex.EncodeToString(sum[:])
}

// A database is one in memory. A query that is cut off costs its connection,
// so the memory hangs on a second one, which asks nothing.
type database struct {
	*sql.DB
	keeper *sql.DB
}

func openDB(ctx context.Context) (database, error) {
	name := "file:/" + rand.Text() + "?vfs=memdb&_pragma=temp_store(2)&_pragma=max_page_count(8192)&_pragma=trusted_schema(0)"
	keeper, err := sql.Open("sqlite", name)
	if err != nil {
		return database{}, err
	}
	keeper.SetMaxOpenConns(1)
	if err := keeper.PingContext(ctx); err != nil {
		return database{}, errors.Join(err, keeper.Close())
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return database{}, errors.Join(err, keeper.Close())
	}
	db.SetMaxOpenConns(1) // one writer at a time, and nobody waits for locks
	return database{db, keeper}, nil
}

// Close forgets the database.
func (d database) Close() error { return errors.Join(d.DB.Close(), d.keeper.Close()) }

// confine keeps injected SQL inside the database: without attached databases
// there is neither ATTACH nor VACUUM INTO, so that no file of the machine can
// be read or written.
func confine(conn *sql.Conn) error {
	for id, limit := range map[int]int{
		sqlite3.SQLITE_LIMIT_ATTACHED:   0,
		sqlite3.SQLITE_LIMIT_LENGTH:     1 << 20,
		sqlite3.SQLITE_LIMIT_SQL_LENGTH: 2 * maxForm,
	} {
		if _, err := sqlite.Limit(conn, id, limit); err != nil {
			return err
		}
	}
	return nil
}

// queryTime bounds what an injected query can cost.
const queryTime = 2 * time.Second

// stock fills the database with what the shop opens with.
func stock(ctx context.Context, db database) error {
	if _, err := db.ExecContext(ctx, stockSQL); err != nil {
		return fmt.Errorf("stocking the demo shop: %w", err)
	}
	for _, u := range slices.Concat(firstUsers, crew) {
		if u.Role == "" {
			u.Role, u.Email, u.Balance = "member", u.Username+"@mail.example", welcome
		}
		u.Password = hashPassword(u.Password)
		if err := addUser(ctx, db, u, true); err != nil {
			return fmt.Errorf("stocking the demo shop: %w", err)
		}
	}
	for i := range crewOrders {
		u := crew[i%len(crew)]
		if _, err := db.ExecContext(ctx, "INSERT INTO orders (id, username, slug, price, address, placed, keep) VALUES (?, ?, 'lighthouse-tea', 950, ?, '24 November', 1)",
			firstCrewOrder+i, u.Username, u.Address); err != nil {
			return fmt.Errorf("stocking the demo shop: %w", err)
		}
	}
	return nil
}

// The crew's orders have the numbers after those of stock.sql.
const (
	firstCrewOrder = 1005
	crewOrders     = 26
)

func addUser(ctx context.Context, db database, u user, keep bool) error {
	_, err := db.ExecContext(ctx, `INSERT INTO users (username, name, email, address, role, password, balance, keep)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, u.Username, u.Name, u.Email, u.Address, u.Role, u.Password, u.Balance, keep)
	return err
}

func (s *Shop) user(ctx context.Context, username string) (user, error) {
	var u user
	err := s.db.QueryRowContext(ctx, `SELECT username, name, email, address, role, password, balance
		FROM users WHERE username = ?`, username).
		Scan(&u.Username, &u.Name, &u.Email, &u.Address, &u.Role, &u.Password, &u.Balance)
	return u, err
}

// maxRows bounds what any page shows.
const maxRows = 100

// rows runs a query and scans every row by scan. It reads all of it at once,
// because the one connection is busy until then. Every statement that can be
// injected into comes through here.
func rows[T any](ctx context.Context, db database, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := confine(conn); err != nil {
		return nil, err
	}
	// An injected BEGIN would lock everybody out. Without one this fails.
	defer func() { _, _ = conn.ExecContext(ctx, "ROLLBACK") }()
	rs, err := conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return scanAll(rs, scan)
}

func scanAll[T any](rs *sql.Rows, scan func(*sql.Rows, *T) error) (all []T, err error) {
	defer rs.Close()
	for rs.Next() && len(all) < maxRows {
		var one T
		if err := scan(rs, &one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rs.Err()
}
