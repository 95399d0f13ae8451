package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// ticketCookie is the cookie that is set for a browser.
const ticketCookie = "__Host-PBSAuthCookie"

func login(c *call) (any, error) {
	if c.Has("tfa-challenge") {
		return nil, rest.BadRequest("there is no second factor")
	}
	t, err := c.server.o.Access.Login(c.Context(), wire.AuthID(c.Str("username")), c.Str("password"), from(c.Request))
	if err != nil {
		return nil, c.server.loginRefused(c.Request, err)
	}
	c.log.Info("login", "user", string(t.User), "from", c.RemoteAddr)
	a := api.Ticket{User: string(t.User), CSRF: t.CSRF}
	if !c.Bool("http-only", false) {
		a.Ticket = t.Ticket
		return a, nil
	}
	// Not by http.SetCookie, which would refuse or change what a ticket holds.
	c.Header().Add("Set-Cookie", ticketCookie+"="+t.Ticket+"; Secure; SameSite=Lax; HttpOnly; Path=/;")
	a.Info = ticketInfo(t.Ticket)
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
	if c.Has("digest") && c.Str("digest") != c.server.o.Access.Digest() {
		return rest.BadRequest("detected modified configuration - file changed by other user? Try again.")
	}
	return nil
}

// user is the user that the call names.
func (c *call) user() wire.AuthID { return wire.AuthID(c.Str("userid")) }

// tokenID is the token that the call names.
func (c *call) tokenID() wire.AuthID {
	return wire.AuthID(c.Str("userid") + "!" + c.Str("token-name"))
}

// manages is for changes of users. Nobody but root@pam manages root@pam, who may do more
// than any privilege grants.
func (c *call) manages() error {
	if c.user() == wire.RootUser && c.auth != wire.RootUser {
		return c.denied()
	}
	return c.digestMatches()
}

// missing turns the absence of a configured thing into 404.
func missing(err error) error {
	if errors.Is(err, chunkstore.ErrNotExist) {
		return rest.NotFound("%s", rest.Clip(err.Error()))
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
	return nil, missing(c.server.o.Access.SetPassword(c.user(), c.Str("password")))
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
	return &rest.StatusError{Code: http.StatusForbidden, Delay: c.server.o.Limits.DenyDelay,
		Text: fmt.Sprintf("permission check failed - what outlives a login can be made for %v after it: log in with the password of %s again", loginAgeMax, c.auth)}
}

// confirmed refuses to set a password for whoever has a ticket and does not give the
// password of its user, which no ticket stands in for. Section 4.9 of the protocol
// specification lets root@pam leave it out, who must have logged in lately then.
func (c *call) confirmed() error {
	if c.Has("confirmation-password") {
		if err := c.server.o.Access.Confirm(c.Context(), c.auth.User(), c.Str("confirmation-password"), from(c.Request)); err != nil {
			return c.server.loginRefused(c.Request, err)
		}
		return c.still() // it took a while
	}
	if c.auth == wire.RootUser {
		return c.lately()
	}
	if _, ticket := c.pass.LoggedIn(); ticket {
		return rest.Refuse(wire.ErrParameter, "parameter verification failed - 'confirmation-password': the password of %s is needed, too", c.auth)
	}
	return nil
}

// userItem is a user in an answer.
func userItem(u access.User) api.UserItem {
	return api.UserItem{
		ID: u.ID, Comment: u.Comment, FirstName: u.FirstName, LastName: u.LastName, Email: u.Email, Enabled: u.Enabled, Expire: u.Expire,
	}
}

// tokenItem is a token in an answer.
func tokenItem(t access.Token) api.TokenItem {
	return api.TokenItem{ID: t.ID, Comment: t.Comment, Enabled: t.Enabled, Expire: t.Expire}
}

func listUsers(c *call) (any, error) {
	everybody, err := c.seesAll()
	if err != nil {
		return nil, err
	}
	all, err := c.server.o.Access.Users()
	if err != nil {
		return nil, err
	}
	list := []api.UserItem{}
	for _, u := range all {
		if u.ID != c.auth && !everybody {
			continue
		}
		item := userItem(u)
		if c.Bool("include_tokens", false) {
			tokens, err := c.server.o.Access.Tokens(u.ID)
			if err != nil {
				return nil, err
			}
			for _, t := range tokens {
				item.Tokens = append(item.Tokens, tokenItem(t))
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
	if slices.Contains(c.Strs("delete"), name) {
		*field = ""
	}
	if c.Has(name) {
		*field = c.Str(name)
	}
}

// validity takes over what says how long something may be used.
func (c *call) validity(enabled bool, expire int64) (bool, int64) {
	if slices.Contains(c.Strs("delete"), "enable") {
		enabled = true
	}
	if slices.Contains(c.Strs("delete"), "expire") {
		expire = 0
	}
	return c.Bool("enable", enabled), c.Int("expire", expire)
}

func createUser(c *call) (any, error) {
	if err := c.lately(); err != nil {
		return nil, err
	}
	u := access.User{ID: c.user(), Enabled: true}
	c.describe(&u)
	return nil, c.server.o.Access.CreateUser(u, c.Str("password"))
}

func getUser(c *call) (any, error) {
	u, err := c.server.o.Access.User(c.user())
	c.top("digest", c.server.o.Access.Digest())
	return userItem(u), missing(err)
}

func setUser(c *call) (any, error) {
	if err := c.manages(); err != nil {
		return nil, err
	}
	// How long a user may do anything is for others to say.
	others := c.granted()
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

func listTokens(c *call) (any, error) {
	all, err := c.server.o.Access.Tokens(c.user())
	if err != nil {
		return nil, missing(err)
	}
	list := []api.TokenItem{}
	for _, t := range all {
		item := tokenItem(t)
		item.Name, _ = t.ID.Token()
		list = append(list, item)
	}
	c.top("digest", c.server.o.Access.Digest())
	return list, nil
}

func getToken(c *call) (any, error) {
	t, err := c.server.o.Access.Token(c.tokenID())
	return tokenItem(t), missing(err)
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
	return api.NewToken{ID: t.ID, Secret: secret}, nil
}

func setToken(c *call) (any, error) {
	if err := c.manages(); err != nil {
		return nil, err
	}
	if c.Has("regenerate") || c.Has("expire") || c.Has("enable") || c.Has("delete") {
		if err := c.lately(); err != nil {
			return nil, err
		}
	}
	err := c.server.o.Access.ChangeToken(c.tokenID(), func(t *access.Token) {
		c.text("comment", &t.Comment)
		t.Enabled, t.Expire = c.validity(t.Enabled, t.Expire)
	})
	if err != nil || !c.Bool("regenerate", false) {
		return nil, missing(err)
	}
	secret, err := c.server.o.Access.RegenerateToken(c.tokenID())
	if err != nil {
		return nil, missing(err)
	}
	return api.NewSecret{Secret: secret}, nil
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
	c.Header().Set("Content-Type", "application/json")
	return nil, c.stream(c.server.o.Access.Export)
}

func importAccess(c *call) (any, error) {
	return nil, c.server.o.Access.Import(c.Body)
}
