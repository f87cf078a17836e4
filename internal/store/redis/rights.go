package redis

// Rights are what the one ACL user of a gateway needs for all that this package
// keeps. A line of an aclfile is
//
//	user merlon on >PASSWORD resetchannels RIGHTS
//
// Key patterns of other programs that use the same server must not begin with
// merlon: as well.
const Rights = SessionRights + " " + TriesRights + " " + SeenRights + " " + KeptRights + " " + LimitRights + " " + BanRights + " " + LinkRights
