-- +goose Up
CREATE TABLE bans (
	site   TEXT    NOT NULL,
	target TEXT    NOT NULL,
	since  INTEGER NOT NULL,
	until  INTEGER NOT NULL,
	times  INTEGER NOT NULL,
	why    TEXT    NOT NULL,
	who    TEXT    NOT NULL,
	PRIMARY KEY (site, target)
) STRICT;
CREATE INDEX bans_until ON bans (until);

CREATE TABLE bans_version (
	n INTEGER NOT NULL PRIMARY KEY
) STRICT;
INSERT INTO bans_version (n) VALUES (0);
