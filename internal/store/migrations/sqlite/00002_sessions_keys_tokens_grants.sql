-- +goose Up
CREATE TABLE sessions (
	hash    BLOB    NOT NULL PRIMARY KEY,
	id      TEXT    NOT NULL,
	account TEXT    NOT NULL,
	site    TEXT    NOT NULL,
	methods TEXT    NOT NULL, -- a JSON array
	level   INTEGER NOT NULL,
	created INTEGER NOT NULL,
	issued  INTEGER NOT NULL,
	proved  INTEGER NOT NULL,
	raised  INTEGER NOT NULL,
	seen    INTEGER NOT NULL,
	until   INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	client  TEXT    NOT NULL,
	agent   TEXT    NOT NULL,
	rights  TEXT    NOT NULL,
	retired INTEGER NOT NULL,
	issuer  TEXT    NOT NULL,
	subject TEXT    NOT NULL,
	sid     TEXT    NOT NULL
) STRICT;
CREATE INDEX sessions_account ON sessions (account, created);
CREATE INDEX sessions_subject ON sessions (issuer, subject) WHERE issuer <> '';
CREATE INDEX sessions_sid     ON sessions (issuer, sid) WHERE issuer <> '';
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE api_keys (
	id        TEXT    NOT NULL PRIMARY KEY,
	hash      BLOB    NOT NULL,
	account   TEXT    NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	name      TEXT    NOT NULL,
	scopes    TEXT    NOT NULL, -- a JSON array
	networks  TEXT    NOT NULL, -- a JSON array
	created   INTEGER NOT NULL,
	expires   INTEGER NOT NULL,
	revoked   INTEGER NOT NULL,
	used      INTEGER NOT NULL,
	used_from TEXT    NOT NULL
) STRICT;
CREATE INDEX api_keys_account ON api_keys (account, created);

CREATE TABLE signing_keys (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT,
	id        TEXT    NOT NULL UNIQUE,
	algorithm TEXT    NOT NULL,
	sealed    BLOB    NOT NULL,
	created   INTEGER NOT NULL,
	sign_from INTEGER NOT NULL
) STRICT;

-- The last number that was given to a revocation. Whoever takes the next one
-- holds this row until its transaction ends, so that numbers appear in order.
CREATE TABLE revocation_seq (
	last INTEGER NOT NULL
) STRICT;
INSERT INTO revocation_seq (last) VALUES (0);

CREATE TABLE revocations (
	kind    TEXT    NOT NULL,
	issuer  TEXT    NOT NULL,
	id      TEXT    NOT NULL,
	before  INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	seq     INTEGER NOT NULL UNIQUE,
	PRIMARY KEY (kind, issuer, id)
) STRICT;
CREATE INDEX revocations_expires ON revocations (expires);

CREATE TABLE token_families (
	id         TEXT    NOT NULL PRIMARY KEY,
	generation INTEGER NOT NULL,
	hash       BLOB    NOT NULL,
	previous   BLOB,
	rotated    INTEGER NOT NULL,
	started    INTEGER NOT NULL,
	idle       INTEGER NOT NULL,
	expires    INTEGER NOT NULL,
	revoked    INTEGER NOT NULL,
	subject    TEXT    NOT NULL,
	client     TEXT    NOT NULL,
	session    TEXT    NOT NULL,
	audience   TEXT    NOT NULL, -- a JSON array
	scopes     TEXT    NOT NULL, -- a JSON array
	methods    TEXT    NOT NULL, -- a JSON array
	auth_time  INTEGER NOT NULL
) STRICT;
CREATE INDEX token_families_subject ON token_families (subject);
CREATE INDEX token_families_session ON token_families (session);
CREATE INDEX token_families_expires ON token_families (expires);

CREATE TABLE grants (
	id        TEXT    NOT NULL PRIMARY KEY,
	client    TEXT    NOT NULL,
	subject   TEXT    NOT NULL,
	session   TEXT    NOT NULL,
	scopes    TEXT    NOT NULL, -- a JSON array
	offline   INTEGER NOT NULL,
	methods   TEXT    NOT NULL, -- a JSON array
	auth_time INTEGER NOT NULL,
	created   INTEGER NOT NULL,
	expires   INTEGER NOT NULL
) STRICT;
CREATE INDEX grants_subject ON grants (subject, client);
CREATE INDEX grants_expires ON grants (expires);

CREATE TABLE grant_codes (
	hash      BLOB    NOT NULL PRIMARY KEY,
	grant_id  TEXT    NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
	client    TEXT    NOT NULL,
	redirect  TEXT    NOT NULL,
	challenge TEXT    NOT NULL,
	nonce     TEXT    NOT NULL,
	expires   INTEGER NOT NULL,
	spent     INTEGER NOT NULL
) STRICT;
CREATE INDEX grant_codes_grant ON grant_codes (grant_id);

CREATE TABLE grant_refreshes (
	hash     BLOB    NOT NULL PRIMARY KEY,
	grant_id TEXT    NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
	client   TEXT    NOT NULL,
	scopes   TEXT    NOT NULL, -- a JSON array
	expires  INTEGER NOT NULL,
	spent    INTEGER NOT NULL
) STRICT;
CREATE INDEX grant_refreshes_grant ON grant_refreshes (grant_id);

CREATE TABLE consents (
	subject TEXT    NOT NULL,
	client  TEXT    NOT NULL,
	scopes  TEXT    NOT NULL, -- a JSON array
	since   INTEGER NOT NULL,
	PRIMARY KEY (subject, client)
) STRICT;
