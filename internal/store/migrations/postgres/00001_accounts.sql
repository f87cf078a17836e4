-- +goose Up
CREATE TABLE accounts (
	id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	name           TEXT COLLATE "C" NOT NULL UNIQUE,
	display        TEXT COLLATE "C" NOT NULL,
	email          TEXT COLLATE "C" NOT NULL,
	email_verified BOOLEAN NOT NULL,
	group_names    TEXT COLLATE "C" NOT NULL, -- a JSON array
	role_names     TEXT COLLATE "C" NOT NULL, -- a JSON array
	password       TEXT COLLATE "C" NOT NULL,
	password_since BIGINT  NOT NULL, -- times are nanoseconds since 1970; 0 is none
	must_change    BOOLEAN NOT NULL,
	created        BIGINT  NOT NULL,
	disabled       BOOLEAN NOT NULL,
	valid_from     BIGINT  NOT NULL,
	enrol_by       BIGINT  NOT NULL,
	search         TEXT COLLATE "C" NOT NULL  -- name, display name and address in lower case
);
CREATE UNIQUE INDEX accounts_email ON accounts (email) WHERE email_verified;

CREATE TABLE factors (
	id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	account TEXT COLLATE "C" NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	kind    TEXT COLLATE "C" NOT NULL,
	name    TEXT COLLATE "C" NOT NULL,
	data    BYTEA   NOT NULL,
	counter BIGINT  NOT NULL,
	created BIGINT  NOT NULL,
	used    BIGINT  NOT NULL
);
CREATE INDEX factors_account ON factors (account, created);

CREATE TABLE links (
	hash    BYTEA   NOT NULL PRIMARY KEY,
	purpose TEXT COLLATE "C" NOT NULL,
	account TEXT COLLATE "C" REFERENCES accounts (id) ON DELETE CASCADE,
	data    TEXT COLLATE "C" NOT NULL,
	expires BIGINT  NOT NULL
);
CREATE INDEX links_account ON links (account, purpose);
CREATE INDEX links_expires ON links (expires);

CREATE TABLE devices (
	account TEXT COLLATE "C" NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	hash    BYTEA   NOT NULL,
	agent   TEXT COLLATE "C" NOT NULL,
	created BIGINT  NOT NULL,
	used    BIGINT  NOT NULL,
	PRIMARY KEY (account, hash)
);

CREATE TABLE logins (
	id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	account TEXT COLLATE "C" NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	time    BIGINT  NOT NULL,
	client  TEXT COLLATE "C" NOT NULL,
	agent   TEXT COLLATE "C" NOT NULL,
	method  TEXT COLLATE "C" NOT NULL,
	result  TEXT COLLATE "C" NOT NULL
);
CREATE INDEX logins_account ON logins (account, id);

CREATE TABLE externals (
	issuer  TEXT COLLATE "C" NOT NULL,
	subject TEXT COLLATE "C" NOT NULL,
	account TEXT COLLATE "C" NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	created BIGINT  NOT NULL,
	PRIMARY KEY (issuer, subject)
);
CREATE INDEX externals_account ON externals (account);
