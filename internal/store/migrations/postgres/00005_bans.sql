-- +goose Up
CREATE TABLE bans (
	site   TEXT COLLATE "C" NOT NULL,
	target TEXT COLLATE "C" NOT NULL,
	since  BIGINT NOT NULL,
	until  BIGINT NOT NULL,
	times  BIGINT NOT NULL,
	why    TEXT COLLATE "C" NOT NULL,
	who    TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (site, target)
);
CREATE INDEX bans_until ON bans (until);

CREATE TABLE bans_version (
	n BIGINT NOT NULL PRIMARY KEY
);
INSERT INTO bans_version (n) VALUES (0);
