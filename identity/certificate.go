package identity

// Certificates accepts client certificates that the TLS listener has verified.
type Certificates struct {
	// Name says what of the certificate is the log-in name: cn, email, uri or
	// dns. There must be exactly one of it. Default: email. Example:
	//
	//	name: uri
	Name string `yaml:"name,omitempty"`
	// Accounts says that there must be an account with that name, whose groups
	// and roles hold; otherwise the certificate alone is enough. Default:
	// false. Example:
	//
	//	accounts: true
	Accounts bool `yaml:"accounts,omitempty"`
	// Issuers are the common names of authorities that may issue these
	// certificates. Default: any that the listener trusts for clients. Example:
	//
	//	issuers: [Example Staff CA]
	Issuers []string `yaml:"issuers,omitempty"`
	// Groups of everybody with a certificate. Default: none. Example:
	//
	//	groups: [staff]
	Groups []string `yaml:"groups,omitempty"`
	// Roles of everybody with a certificate. Default: none. Example:
	//
	//	roles: [team]
	Roles []string `yaml:"roles,omitempty"`
}
