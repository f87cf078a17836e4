-- +goose Up
CREATE TABLE accounts (
	id             TEXT    NOT NULL PRIMARY KEY,
	name           TEXT    NOT NULL UNIQUE,
	display        TEXT    NOT NULL,
	email          TEXT    NOT NULL,
	email_verified INTEGER NOT NULL,
	group_names    TEXT    NOT NULL, -- a JSON array
	role_names     TEXT    NOT NULL, -- a JSON array
	password       TEXT    NOT NULL,
	password_since INTEGER NOT NULL, -- times are nanoseconds since 1970; 0 is none
	must_change    INTEGER NOT NULL,
	created        INTEGER NOT NULL,
	disabled       INTEGER NOT NULL,
	valid_from     INTEGER NOT NULL,
	enrol_by       INTEGER NOT NULL,
	search         TEXT    NOT NULL  -- name, display name and address in lower case
) STRICT;
CREATE UNIQUE INDEX accounts_email ON accounts (email) WHERE email_verified;

CREATE TABLE factors (
	id      TEXT    NOT NULL PRIMARY KEY,
	account TEXT    NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	kind    TEXT    NOT NULL,
	name    TEXT    NOT NULL,
	data    BLOB    NOT NULL,
	counter INTEGER NOT NULL,
	created INTEGER NOT NULL,
	used    INTEGER NOT NULL
) STRICT;
CREATE INDEX factors_account ON factors (account, created);

CREATE TABLE links (
	hash    BLOB    NOT NULL PRIMARY KEY,
	purpose TEXT    NOT NULL,
	account TEXT    REFERENCES accounts (id) ON DELETE CASCADE,
	data    TEXT    NOT NULL,
	expires INTEGER NOT NULL
) STRICT;
CREATE INDEX links_account ON links (account, purpose);
CREATE INDEX links_expires ON links (expires);

CREATE TABLE devices (
	account TEXT    NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	hash    BLOB    NOT NULL,
	agent   TEXT    NOT NULL,
	created INTEGER NOT NULL,
	used    INTEGER NOT NULL,
	PRIMARY KEY (account, hash)
) STRICT;

CREATE TABLE logins (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	account TEXT    NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	time    INTEGER NOT NULL,
	client  TEXT    NOT NULL,
	agent   TEXT    NOT NULL,
	method  TEXT    NOT NULL,
	result  TEXT    NOT NULL
) STRICT;
CREATE INDEX logins_account ON logins (account, id);

CREATE TABLE externals (
	issuer  TEXT    NOT NULL,
	subject TEXT    NOT NULL,
	account TEXT    NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	created INTEGER NOT NULL,
	PRIMARY KEY (issuer, subject)
) STRICT;
CREATE INDEX externals_account ON externals (account);
