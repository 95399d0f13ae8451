package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

func accessMethods() []method {
	secret := func(name string) param { return param{name: name, optional: true, check: checkSecret} }
	return []method{
		{verb: http.MethodPost, path: "/access/ticket", public: true, do: login, params: []param{
			{name: "username", check: checkUserID}, {name: "password", check: checkSecret},
			{name: "path", optional: true, check: checkComment}, {name: "privs", optional: true, check: checkComment},
			{name: "port", kind: integer, optional: true, check: within(1, 65535)},
			secret("tfa-challenge"), {name: "http-only", kind: boolean, optional: true},
		}},
		{verb: http.MethodDelete, path: "/access/ticket", public: true, do: logout},
		{verb: http.MethodPut, path: "/access/password", do: setPassword, params: []param{
			{name: "userid", check: checkUserID}, {name: "password", check: checkPassword}, secret("confirmation-password"),
		}},
		{verb: http.MethodPost, path: "/access/export", local: true, raw: true, do: exportAccess},
		{verb: http.MethodPost, path: "/access/import", local: true, raw: true, do: importAccess},
	}
}

// userParams are the parameters that describe a user or token, and more.
func userParams(more ...param) []param {
	return append(more,
		param{name: "comment", optional: true, check: checkComment}, param{name: "enable", kind: boolean, optional: true},
		param{name: "expire", kind: integer, optional: true, check: within(0, 1<<53)},
	)
}

// personParams are those of users only.
func personParams(more ...param) []param {
	for _, name := range []string{"firstname", "lastname", "email"} {
		more = append(more, param{name: name, optional: true, check: checkComment})
	}
	return userParams(more...)
}

func userMethods() []method {
	const one, token = "/access/users/{userid}", "/access/users/{userid}/token/{token-name}"
	user := param{name: "userid", check: checkUserID}
	name := param{name: "token-name", check: func(s string) error { return wire.CheckSafeID("token", s) }}
	drop := param{name: "delete", kind: strs, optional: true, check: oneOf("comment", "enable", "expire", "firstname", "lastname", "email")}
	return []method{
		{verb: http.MethodGet, path: "/access/users", do: listUsers,
			params: []param{{name: "include_tokens", kind: boolean, optional: true}}},
		{verb: http.MethodPost, path: "/access/users", do: createUser,
			params: personParams(user, param{name: "password", optional: true, check: checkPassword})},
		{verb: http.MethodGet, path: one, params: []param{user}, do: getUser},
		{verb: http.MethodPut, path: one, params: personParams(user, drop, digestParam), do: setUser},
		{verb: http.MethodDelete, path: one, params: []param{user, digestParam}, do: removeUser},
		{verb: http.MethodGet, path: one + "/token", params: []param{user}, do: listTokens},
		{verb: http.MethodGet, path: token, params: []param{user, name}, do: getToken},
		{verb: http.MethodPost, path: token, params: userParams(user, name, digestParam), do: createToken},
		{verb: http.MethodPut, path: token, do: setToken,
			params: userParams(user, name, drop, digestParam, param{name: "regenerate", kind: boolean, optional: true})},
		{verb: http.MethodDelete, path: token, params: []param{user, name, digestParam}, do: removeToken},
	}
}

// ticketCookie is the cookie that is set for a browser.
const ticketCookie = "__Host-PBSAuthCookie"

func login(c *call) (any, error) {
	if c.has("tfa-challenge") {
		return nil, badRequest("there is no second factor")
	}
	t, err := c.server.o.Access.Login(c.Context(), wire.AuthID(c.str("username")), c.str("password"), from(c.Request))
	if err != nil {
		return nil, c.server.loginRefused(c.Request, err)
	}
	c.log.Info("login", "user", string(t.User), "from", c.RemoteAddr)
	a := map[string]string{"username": string(t.User), "CSRFPreventionToken": t.CSRF}
	if !c.bool("http-only", false) {
		a["ticket"] = t.Ticket
		return a, nil
	}
	// Not by http.SetCookie, which would refuse or change what a ticket holds.
	c.Header().Add("Set-Cookie", ticketCookie+"="+t.Ticket+"; Secure; SameSite=Lax; HttpOnly; Path=/;")
	a["ticket-info"] = ticketInfo(t.Ticket)
	c.top("status", http.StatusOK)
	c.top("success", true)
	return a, nil
}

// logout ends the ticket that the request carries, and takes the cookie from a
// browser.
func logout(c *call) (any, error) {
	err := c.server.o.Access.Logout(credentials(c.Request))
	c.Header().Add("Set-Cookie", ticketCookie+"=; Secure; SameSite=Lax; HttpOnly; Path=/; Max-Age=0;")
	return nil, err
}

// digestMatches refuses a change to a configuration that the caller has not
// seen as it is now.
func (c *call) digestMatches() error {
	if c.has("digest") && c.str("digest") != c.server.o.Access.Digest() {
		return badRequest("detected modified configuration - file changed by other user? Try again.")
	}
	return nil
}

// user is the user that the call names.
func (c *call) user() wire.AuthID { return wire.AuthID(c.str("userid")) }

// tokenID is the token that the call names.
func (c *call) tokenID() wire.AuthID {
	return wire.AuthID(c.str("userid") + "!" + c.str("token-name"))
}

// manages lets pass the user itself and who may manage users. Nobody but
// root@pam manages root@pam, who may do more than any privilege grants.
func (c *call) manages() error {
	if c.auth == c.user() {
		return c.digestMatches()
	}
	if c.user() == wire.RootUser {
		return c.denied()
	}
	if err := c.require("/access/users", access.PermissionsModify); err != nil {
		return err
	}
	return c.digestMatches()
}

// reads lets pass the user itself and who may see users.
func (c *call) reads() error {
	if c.auth == c.user() {
		return nil
	}
	return c.require("/access/users", access.SysAudit, access.PermissionsModify)
}

// missing turns the absence of a configured thing into 404.
func missing(err error) error {
	if errors.Is(err, chunkstore.ErrNotExist) {
		return notFound("%s", clip(err.Error()))
	}
	return err
}

func setPassword(c *call) (any, error) {
	if err := c.manages(); err != nil {
		return nil, err
	}
	if err := c.confirmed(); err != nil {
		return nil, err
	}
	return nil, missing(c.server.o.Access.SetPassword(c.user(), c.str("password")))
}

// loginAgeMax is how old a login may be for what outlives the ticket that came of it.
const loginAgeMax = 10 * time.Minute

// lately refuses whoever has a ticket alone, stolen maybe: what he makes would outlive
// it. A token, and the machine itself, need no login.
func (c *call) lately() error {
	at, ticket := c.pass.LoggedIn()
	if !ticket || c.server.o.Now().Sub(at) <= loginAgeMax {
		return nil
	}
	return &statusError{code: http.StatusForbidden, delay: c.server.o.Limits.DenyDelay,
		text: fmt.Sprintf("permission check failed - what outlives a login can be made for %v after it: log in with the password of %s again", loginAgeMax, c.auth)}
}

// confirmed refuses to set a password for whoever has a ticket and does not give the
// password of its user, which no ticket stands in for. Section 4.9 of the protocol
// specification lets root@pam leave it out, who must have logged in lately then.
func (c *call) confirmed() error {
	if c.has("confirmation-password") {
		if err := c.server.o.Access.Confirm(c.Context(), c.auth.User(), c.str("confirmation-password"), from(c.Request)); err != nil {
			return c.server.loginRefused(c.Request, err)
		}
		return c.still() // it took a while
	}
	if c.auth == wire.RootUser {
		return c.lately()
	}
	if _, ticket := c.pass.LoggedIn(); ticket {
		return badRequest("parameter verification failed - 'confirmation-password': the password of %s is needed, too", c.auth)
	}
	return nil
}

// userItem is a user in a listing.
type userItem struct {
	access.User
	Tokens []access.Token `json:"tokens,omitempty"`
}

func listUsers(c *call) (any, error) {
	have, err := c.server.o.Access.Privileges(c.auth, "/access/users")
	if err != nil {
		return nil, err
	}
	all, err := c.server.o.Access.Users()
	if err != nil {
		return nil, err
	}
	list := []userItem{}
	for _, u := range all {
		if u.ID != c.auth && !have.Any(access.SysAudit|access.PermissionsModify) {
			continue
		}
		item := userItem{User: u}
		if c.bool("include_tokens", false) {
			if item.Tokens, err = c.server.o.Access.Tokens(u.ID); err != nil {
				return nil, err
			}
		}
		list = append(list, item)
	}
	c.top("digest", c.server.o.Access.Digest())
	return list, nil
}

// describe takes over the parameters that describe a user.
func (c *call) describe(u *access.User) {
	c.text("comment", &u.Comment)
	c.text("firstname", &u.FirstName)
	c.text("lastname", &u.LastName)
	c.text("email", &u.Email)
	u.Enabled, u.Expire = c.validity(u.Enabled, u.Expire)
}

// text takes over a parameter that was given or is to be deleted.
func (c *call) text(name string, field *string) {
	if slices.Contains(c.strs("delete"), name) {
		*field = ""
	}
	if c.has(name) {
		*field = c.str(name)
	}
}

// validity takes over what says how long something may be used.
func (c *call) validity(enabled bool, expire int64) (bool, int64) {
	if slices.Contains(c.strs("delete"), "enable") {
		enabled = true
	}
	if slices.Contains(c.strs("delete"), "expire") {
		expire = 0
	}
	return c.bool("enable", enabled), c.int("expire", expire)
}

func createUser(c *call) (any, error) {
	if err := c.require("/access/users", access.PermissionsModify); err != nil {
		return nil, err
	}
	if err := c.lately(); err != nil {
		return nil, err
	}
	u := access.User{ID: c.user(), Enabled: true}
	c.describe(&u)
	return nil, c.server.o.Access.CreateUser(u, c.str("password"))
}

func getUser(c *call) (any, error) {
	if err := c.reads(); err != nil {
		return nil, err
	}
	u, err := c.server.o.Access.User(c.user())
	c.top("digest", c.server.o.Access.Digest())
	return u, missing(err)
}

func setUser(c *call) (any, error) {
	if err := c.manages(); err != nil {
		return nil, err
	}
	// How long a user may do anything is for others to say.
	others := c.require("/access/users", access.PermissionsModify)
	return nil, missing(c.server.o.Access.ChangeUser(c.user(), func(u *access.User) error {
		was := *u
		c.describe(u)
		if u.Expire != was.Expire || u.Enabled != was.Enabled {
			return others
		}
		return nil
	}))
}

func removeUser(c *call) (any, error) {
	if err := c.manages(); err != nil {
		return nil, err
	}
	return nil, missing(c.server.o.Access.RemoveUser(c.user()))
}

// tokenItem is a token in a listing.
type tokenItem struct {
	access.Token
	Name string `json:"token-name"`
}

func listTokens(c *call) (any, error) {
	if err := c.reads(); err != nil {
		return nil, err
	}
	all, err := c.server.o.Access.Tokens(c.user())
	if err != nil {
		return nil, missing(err)
	}
	list := []tokenItem{}
	for _, t := range all {
		name, _ := t.ID.Token()
		list = append(list, tokenItem{Token: t, Name: name})
	}
	c.top("digest", c.server.o.Access.Digest())
	return list, nil
}

func getToken(c *call) (any, error) {
	if err := c.reads(); err != nil {
		return nil, err
	}
	t, err := c.server.o.Access.Token(c.tokenID())
	return t, missing(err)
}

func createToken(c *call) (any, error) {
	if err := c.manages(); err != nil {
		return nil, err
	}
	if err := c.lately(); err != nil {
		return nil, err
	}
	t := access.Token{ID: c.tokenID(), Enabled: true}
	c.text("comment", &t.Comment)
	t.Enabled, t.Expire = c.validity(t.Enabled, t.Expire)
	var secret string
	err := c.ownRow("tokens", c.server.ownTokens, func() (err error) {
		secret, err = c.server.o.Access.CreateToken(t)
		return err
	})
	if err != nil {
		return nil, missing(err)
	}
	return map[string]string{"tokenid": string(t.ID), "value": secret}, nil
}

func setToken(c *call) (any, error) {
	if err := c.manages(); err != nil {
		return nil, err
	}
	if c.has("regenerate") || c.has("expire") || c.has("enable") || c.has("delete") {
		if err := c.lately(); err != nil {
			return nil, err
		}
	}
	err := c.server.o.Access.ChangeToken(c.tokenID(), func(t *access.Token) {
		c.text("comment", &t.Comment)
		t.Enabled, t.Expire = c.validity(t.Enabled, t.Expire)
	})
	if err != nil || !c.bool("regenerate", false) {
		return nil, missing(err)
	}
	secret, err := c.server.o.Access.RegenerateToken(c.tokenID())
	if err != nil {
		return nil, missing(err)
	}
	return map[string]string{"secret": secret}, nil
}

func removeToken(c *call) (any, error) {
	if err := c.manages(); err != nil {
		return nil, err
	}
	return nil, missing(c.server.o.Access.RevokeToken(c.tokenID()))
}

// exportAccess writes the whole configuration. It holds hashes of secrets, so
// that it exists on the machine itself only.
func exportAccess(c *call) (any, error) {
	if c.auth != wire.RootUser {
		return nil, c.denied()
	}
	c.Header().Set("Content-Type", "application/json")
	return nil, c.stream(c.server.o.Access.Export)
}

func importAccess(c *call) (any, error) {
	if c.auth != wire.RootUser {
		return nil, c.denied()
	}
	return nil, c.server.o.Access.Import(c.Body)
}
