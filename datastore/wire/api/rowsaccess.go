package api

import "holdfast/datastore/wire"

// The methods about who may do what.
const (
	Login           Op = "POST /access/ticket"
	Logout          Op = "DELETE /access/ticket"
	SetPassword     Op = "PUT /access/password"
	ExportAccess    Op = "POST /access/export"
	ImportAccess    Op = "POST /access/import"
	ListUsers       Op = "GET /access/users"
	CreateUser      Op = "POST /access/users"
	GetUser         Op = "GET /access/users/{userid}"
	SetUser         Op = "PUT /access/users/{userid}"
	RemoveUser      Op = "DELETE /access/users/{userid}"
	ListTokens      Op = "GET /access/users/{userid}/token"
	GetToken        Op = "GET /access/users/{userid}/token/{token-name}"
	CreateToken     Op = "POST /access/users/{userid}/token/{token-name}"
	SetToken        Op = "PUT /access/users/{userid}/token/{token-name}"
	RemoveToken     Op = "DELETE /access/users/{userid}/token/{token-name}"
	ListACLs        Op = "GET /access/acl"
	SetACL          Op = "PUT /access/acl"
	ListRoles       Op = "GET /access/roles"
	ListPermissions Op = "GET /access/permissions"
	ListQuotas      Op = "GET /access/quota"
	SetQuota        Op = "PUT /access/quota"
	RemoveQuota     Op = "DELETE /access/quota"
)

func ticketRows() []Method {
	return []Method{
		{Op: Login, About: "log in with a password, or renew a ticket", May: May{Who: Anybody, Note: "the password or the ticket is the proof"},
			Answer: Ticket{}, Params: []Param{
				needed("username", CheckUserID), needed("password", CheckSecret), optional("path", CheckComment), optional("privs", CheckComment),
				number("port", 1, 65535), optional("tfa-challenge", CheckSecret), yesNo("http-only"),
			}},
		{Op: Logout, About: "end the ticket of the request", May: May{Who: Anybody}},
		{Op: SetPassword, About: "set a password", May: self(PermissionsModify).but("root@pam itself only; who has a ticket gives its own password, too"),
			Params: []Param{userParam, needed("password", CheckPassword), optional("confirmation-password", CheckSecret)}},
		{Op: ExportAccess, About: "write the whole configuration, hashes of secrets included", Raw: true, Answer: Bytes{}, May: local()},
		{Op: ImportAccess, About: "replace the whole configuration", Raw: true, May: local()},
	}
}

// self is the user itself, or who has one of the privileges on all users.
func self(any Privilege) May { return May{Who: Self, On: "/access/users", Any: any} }

func local() May { return May{Who: Local, Note: "root@pam"} }

// manages is who may change a user.
func manages() May { return self(PermissionsModify).but("root@pam is changed by itself only") }

// Parameters of users and tokens.
var (
	userParam  = Param{Name: "userid", Check: CheckUserID}
	tokenParam = Param{Name: "token-name", Check: func(s string) error { return wire.CheckSafeID("token", s) }}
	dropParam  = Param{Name: "delete", Kind: Strs, Optional: true, Check: OneOf("comment", "enable", "expire", "firstname", "lastname", "email")}
)

// validParams are the parameters that describe a user or token, after others.
func validParams(more ...Param) []Param {
	return append(more, optional("comment", CheckComment), yesNo("enable"), number("expire", 0, 1<<53))
}

// personParams are those of users only.
func personParams(more ...Param) []Param {
	for _, name := range []string{"firstname", "lastname", "email"} {
		more = append(more, optional(name, CheckComment))
	}
	return validParams(more...)
}

func userRows() []Method {
	return []Method{
		{Op: ListUsers, About: "list users", Answer: []UserItem{}, Params: []Param{yesNo("include_tokens")},
			May: May{Who: Lists, On: "/access/users", Any: SysAudit | PermissionsModify}},
		{Op: CreateUser, About: "make a user", Params: personParams(userParam, optional("password", CheckPassword)),
			May: granted("/access/users", PermissionsModify).but("a ticket of the last ten minutes")},
		{Op: GetUser, About: "tell of a user", Answer: UserItem{}, Params: []Param{userParam}, May: self(SysAudit | PermissionsModify)},
		{Op: SetUser, About: "change a user", Params: personParams(userParam, dropParam, DigestParam),
			May: manages().but("expiry and disabling are for who has the privilege")},
		{Op: RemoveUser, About: "remove a user with tokens, rules and quotas", Params: []Param{userParam, DigestParam}, May: manages()},
	}
}

func tokenRows() []Method {
	return []Method{
		{Op: ListTokens, About: "list the tokens of a user", Answer: []TokenItem{}, Params: []Param{userParam}, May: self(SysAudit | PermissionsModify)},
		{Op: GetToken, About: "tell of a token", Answer: TokenItem{}, Params: []Param{userParam, tokenParam}, May: self(SysAudit | PermissionsModify)},
		{Op: CreateToken, About: "make a token; its secret is told this once", Answer: NewToken{},
			Params: validParams(userParam, tokenParam, DigestParam), May: manages().but("a ticket of the last ten minutes")},
		{Op: SetToken, About: "change a token", Answer: NewSecret{},
			Params: validParams(userParam, tokenParam, dropParam, DigestParam, yesNo("regenerate")),
			May:    manages().but("a ticket of the last ten minutes for all but the comment")},
		{Op: RemoveToken, About: "remove a token with its rules and quotas", Params: []Param{userParam, tokenParam, DigestParam}, May: manages()},
	}
}

func checkRole(s string) error {
	_, err := ParseRole(s)
	return err
}

func aclRows() []Method {
	return []Method{
		{Op: ListACLs, About: "list access rules", Answer: []ACLItem{}, Params: []Param{optional("path", CheckComment), yesNo("exact")},
			May: May{Who: Lists, On: "/access/acl", Any: SysAudit | PermissionsModify}},
		{Op: SetACL, About: "give a role, or take it away",
			May: May{Who: Asks, On: "/access/acl", Any: PermissionsModify, Note: "the rules of a user's tokens are its own"},
			Params: []Param{
				needed("path", CheckComment), needed("role", checkRole), needed("auth-id", CheckAuthID),
				yesNo("propagate"), yesNo("delete"), DigestParam,
			}},
		{Op: ListRoles, About: "list roles", Answer: []RoleItem{}, May: May{Who: LoggedIn}},
		{Op: ListPermissions, About: "list the privileges of a user or token, by path", Answer: Permissions{},
			May:    May{Who: Asks, On: "/access", Any: SysAudit, Note: "one's own and those of one's tokens"},
			Params: []Param{optional("path", CheckComment), optional("auth-id", CheckAuthID)}},
	}
}

// The bounds of a quota; 0 is none.
const (
	QuotaBytes     = "bytes-max"
	QuotaSnapshots = "snapshots-per-day"
)

func quotaRows() []Method {
	subject := needed("subject", CheckComment)
	change := granted("/access", PermissionsModify)
	return []Method{
		{Op: ListQuotas, About: "list quotas", Answer: []QuotaItem{}, Params: []Param{Opt(subject)},
			May: May{Who: Lists, On: "/access", Any: SysAudit | PermissionsModify}},
		{Op: SetQuota, About: "change the bounds that are named", Answer: QuotaItem{}, May: change,
			Params: []Param{subject, number(QuotaBytes, 0, 1<<62), number(QuotaSnapshots, 0, 1<<31), DigestParam}},
		{Op: RemoveQuota, About: "remove a quota", Params: []Param{subject, DigestParam}, May: change},
	}
}
