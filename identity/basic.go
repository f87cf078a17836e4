package identity

// Basic accepts a name and password in every request (RFC 7617). It is asked
// for over TLS only.
type Basic struct {
	// Htpasswd is a file with one "name:hash" a line, bcrypt or argon2id only
	// (htpasswd -B). It is read again when it changes. Default: none: the
	// accounts' own passwords are used. Example:
	//
	//	htpasswd: /etc/merlon/htpasswd
	Htpasswd string `yaml:"htpasswd,omitempty"`
	// Realm is the name that browsers show when they ask, at most 64
	// characters. Default: the site's host. Example:
	//
	//	realm: The archive
	Realm string `yaml:"realm,omitempty"`
	// Groups and roles of everybody in the htpasswd file. Default: none.
	// Example:
	//
	//	groups: [scripts]
	Groups []string `yaml:"groups,omitempty"`
	// Roles of everybody in the htpasswd file. Default: none. Example:
	//
	//	roles: [reader]
	Roles []string `yaml:"roles,omitempty"`
	// Ask invites browsers to ask for a password when nobody has proved
	// anything (WWW-Authenticate: Basic). A browser then sends it with every
	// request, also those that other sites' pages cause; the csrf guard is
	// what tells them apart. Default: false. Example:
	//
	//	ask: true
	Ask bool `yaml:"ask,omitempty"`
}
