package redis

// Rights are what the one ACL user of a gateway needs for what this package
// keeps, and to hold its connections.
const Rights = LimitRights + " " + LinkRights

// LinkRights are what every ACL user needs to hold a connection; for a cluster
// or Sentinels as well.
const LinkRights = "+ping +hello +auth +select +role +client|setname +cluster|slots +cluster|shards"
