-- +goose Up
CREATE TABLE sessions (
	hash    BYTEA   NOT NULL PRIMARY KEY,
	id      TEXT COLLATE "C" NOT NULL,
	account TEXT COLLATE "C" NOT NULL,
	site    TEXT COLLATE "C" NOT NULL,
	methods TEXT COLLATE "C" NOT NULL, -- a JSON array
	level   BIGINT  NOT NULL,
	created BIGINT  NOT NULL,
	issued  BIGINT  NOT NULL,
	proved  BIGINT  NOT NULL,
	raised  BIGINT  NOT NULL,
	seen    BIGINT  NOT NULL,
	until   BIGINT  NOT NULL,
	expires BIGINT  NOT NULL,
	client  TEXT COLLATE "C" NOT NULL,
	agent   TEXT COLLATE "C" NOT NULL,
	rights  TEXT COLLATE "C" NOT NULL,
	retired BOOLEAN NOT NULL,
	issuer  TEXT COLLATE "C" NOT NULL,
	subject TEXT COLLATE "C" NOT NULL,
	sid     TEXT COLLATE "C" NOT NULL
);
CREATE INDEX sessions_account ON sessions (account, created);
CREATE INDEX sessions_subject ON sessions (issuer, subject) WHERE issuer <> '';
CREATE INDEX sessions_sid     ON sessions (issuer, sid) WHERE issuer <> '';
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE api_keys (
	id        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	hash      BYTEA   NOT NULL,
	account   TEXT COLLATE "C" NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
	name      TEXT COLLATE "C" NOT NULL,
	scopes    TEXT COLLATE "C" NOT NULL, -- a JSON array
	networks  TEXT COLLATE "C" NOT NULL, -- a JSON array
	created   BIGINT  NOT NULL,
	expires   BIGINT  NOT NULL,
	revoked   BIGINT  NOT NULL,
	used      BIGINT  NOT NULL,
	used_from TEXT COLLATE "C" NOT NULL
);
CREATE INDEX api_keys_account ON api_keys (account, created);

CREATE TABLE signing_keys (
	seq       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id        TEXT COLLATE "C" NOT NULL UNIQUE,
	algorithm TEXT COLLATE "C" NOT NULL,
	sealed    BYTEA   NOT NULL,
	created   BIGINT  NOT NULL,
	sign_from BIGINT  NOT NULL
);

-- The last number that was given to a revocation. Whoever takes the next one
-- holds this row until its transaction ends, so that numbers appear in order.
CREATE TABLE revocation_seq (
	last BIGINT  NOT NULL
);
INSERT INTO revocation_seq (last) VALUES (0);

CREATE TABLE revocations (
	kind    TEXT COLLATE "C" NOT NULL,
	issuer  TEXT COLLATE "C" NOT NULL,
	id      TEXT COLLATE "C" NOT NULL,
	before  BIGINT  NOT NULL,
	expires BIGINT  NOT NULL,
	seq     BIGINT  NOT NULL UNIQUE,
	PRIMARY KEY (kind, issuer, id)
);
CREATE INDEX revocations_expires ON revocations (expires);

CREATE TABLE token_families (
	id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	generation BIGINT  NOT NULL,
	hash       BYTEA   NOT NULL,
	previous   BYTEA,
	rotated    BIGINT  NOT NULL,
	started    BIGINT  NOT NULL,
	idle       BIGINT  NOT NULL,
	expires    BIGINT  NOT NULL,
	revoked    BOOLEAN NOT NULL,
	subject    TEXT COLLATE "C" NOT NULL,
	client     TEXT COLLATE "C" NOT NULL,
	session    TEXT COLLATE "C" NOT NULL,
	audience   TEXT COLLATE "C" NOT NULL, -- a JSON array
	scopes     TEXT COLLATE "C" NOT NULL, -- a JSON array
	methods    TEXT COLLATE "C" NOT NULL, -- a JSON array
	auth_time  BIGINT  NOT NULL
);
CREATE INDEX token_families_subject ON token_families (subject);
CREATE INDEX token_families_session ON token_families (session);
CREATE INDEX token_families_expires ON token_families (expires);

CREATE TABLE grants (
	id        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	client    TEXT COLLATE "C" NOT NULL,
	subject   TEXT COLLATE "C" NOT NULL,
	session   TEXT COLLATE "C" NOT NULL,
	scopes    TEXT COLLATE "C" NOT NULL, -- a JSON array
	offline   BOOLEAN NOT NULL,
	methods   TEXT COLLATE "C" NOT NULL, -- a JSON array
	auth_time BIGINT  NOT NULL,
	created   BIGINT  NOT NULL,
	expires   BIGINT  NOT NULL
);
CREATE INDEX grants_subject ON grants (subject, client);
CREATE INDEX grants_expires ON grants (expires);

CREATE TABLE grant_codes (
	hash      BYTEA   NOT NULL PRIMARY KEY,
	grant_id  TEXT COLLATE "C" NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
	client    TEXT COLLATE "C" NOT NULL,
	redirect  TEXT COLLATE "C" NOT NULL,
	challenge TEXT COLLATE "C" NOT NULL,
	nonce     TEXT COLLATE "C" NOT NULL,
	expires   BIGINT  NOT NULL,
	spent     BOOLEAN NOT NULL
);
CREATE INDEX grant_codes_grant ON grant_codes (grant_id);

CREATE TABLE grant_refreshes (
	hash     BYTEA   NOT NULL PRIMARY KEY,
	grant_id TEXT COLLATE "C" NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
	client   TEXT COLLATE "C" NOT NULL,
	scopes   TEXT COLLATE "C" NOT NULL, -- a JSON array
	expires  BIGINT  NOT NULL,
	spent    BOOLEAN NOT NULL
);
CREATE INDEX grant_refreshes_grant ON grant_refreshes (grant_id);

CREATE TABLE consents (
	subject TEXT COLLATE "C" NOT NULL,
	client  TEXT COLLATE "C" NOT NULL,
	scopes  TEXT COLLATE "C" NOT NULL, -- a JSON array
	since   BIGINT  NOT NULL,
	PRIMARY KEY (subject, client)
);
