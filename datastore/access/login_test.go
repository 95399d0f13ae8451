package access

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

func TestTicketForm(t *testing.T) {
	s, c := open(t)
	c.t = time.Unix(0x6638B280, 0)
	must(t, s.CreateUser(user("a+b@pbs"), "a secret"))
	k := login(t, s, "a+b@pbs", "a secret")
	if !regexp.MustCompile(`^PBS:a\+b@pbs:6638B280::[A-Za-z0-9+/]{64}$`).MatchString(k.Ticket) || k.User != "a+b@pbs" {
		t.Errorf("ticket %+v", k)
	}
	if !regexp.MustCompile(`^6638B280:[A-Za-z0-9+/]{43}$`).MatchString(k.CSRF) {
		t.Errorf("CSRF token %s", k.CSRF)
	}
	c.t = time.Unix(0x0638B280, 0)
	if k = login(t, s, "a+b@pbs", "a secret"); !strings.Contains(k.Ticket, ":0638B280::") {
		t.Errorf("not padded: %s", k.Ticket)
	}
}

func TestTicketAges(t *testing.T) {
	for _, tc := range []struct {
		age  time.Duration
		good bool
	}{{0, true}, {7200, true}, {7201, false}, {-300, true}, {-301, false}, {100000, false}} {
		s, c := open(t)
		must(t, s.CreateUser(user("alice@pbs"), "a secret"))
		k := login(t, s, "alice@pbs", "a secret")
		c.add(tc.age * time.Second)
		_, err := s.Authenticate(withTicket(k))
		_, renewal := s.Login(t.Context(), "alice@pbs", k.Ticket, netip.Addr{})
		if (err == nil) != tc.good || (renewal == nil) != tc.good {
			t.Errorf("age %d s: %v, %v", tc.age, err, renewal)
		}
		// An old CSRF token does not go with a new ticket.
		other := login(t, s, "alice@pbs", "a secret")
		other.CSRF = k.CSRF
		if _, err = s.Authenticate(withTicket(other)); (err == nil) != tc.good {
			t.Errorf("CSRF token of age %d s: %v", tc.age, err)
		}
	}
}

func TestTicketsEnd(t *testing.T) {
	for name, do := range map[string]func(*Store, *clock) error{
		"password": func(s *Store, _ *clock) error { return s.SetPassword("alice@pbs", "a secret") },
		"disabled": func(s *Store, _ *clock) error { return s.SetUser(User{ID: "alice@pbs"}) },
		"disabled and enabled": func(s *Store, _ *clock) error {
			return errors.Join(s.SetUser(User{ID: "alice@pbs"}), s.SetUser(user("alice@pbs")))
		},
		"expired": func(s *Store, c *clock) error {
			return s.SetUser(User{ID: "alice@pbs", Enabled: true, Expire: c.now().Unix()})
		},
		"removed": func(s *Store, _ *clock) error { return s.RemoveUser("alice@pbs") },
		"removed and created": func(s *Store, _ *clock) error {
			return errors.Join(s.RemoveUser("alice@pbs"), s.CreateUser(user("alice@pbs"), "a secret"))
		},
	} {
		s, c := open(t)
		must(t, s.CreateUser(user("alice@pbs"), "a secret"))
		k := login(t, s, "alice@pbs", "a secret")
		accepted(t, s, withTicket(k), "alice@pbs")
		must(t, do(s, c))
		refused(t, s, withTicket(k), name)
		if _, err := s.Login(t.Context(), "alice@pbs", k.Ticket, netip.Addr{}); !errors.Is(err, wire.ErrUnauthenticated) {
			t.Errorf("%s: renewed: %v", name, err)
		}
	}
}

func TestTicketSurvivesOtherChanges(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	k := login(t, s, "alice@pbs", "a secret")
	u := user("alice@pbs")
	u.Comment = "new"
	must(t, s.SetUser(u), s.SetPassword("root@pam", "another"))
	accepted(t, s, withTicket(k), "alice@pbs")
}

func TestForgedTickets(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"), s.SetPassword("root@pam", "another"))
	k, root := login(t, s, "alice@pbs", "a secret"), login(t, s, "root@pam", "another")
	text, sig, _ := strings.Cut(k.Ticket, "::")
	_, rootSig, _ := strings.Cut(root.Ticket, "::")
	for name, forged := range map[string]string{
		"other user":      strings.Replace(k.Ticket, "alice@pbs", "root@pam", 1),
		"other time":      text[:len(text)-1] + "F::" + sig,
		"other signature": text + "::" + rootSig,
		"no signature":    text + "::",
		"cut":             k.Ticket[:len(k.Ticket)-1],
		"longer":          k.Ticket + "A",
		"padded":          k.Ticket + "=",
		"lower case":      strings.Replace(k.Ticket, text, strings.ToLower(text), 1),
		"encoded":         strings.Replace(k.Ticket, "alice", "%2561lice", 1),
		"last bit":        k.Ticket[:len(k.Ticket)-1] + string(k.Ticket[len(k.Ticket)-1]+1),
		"other kind":      "PVE" + k.Ticket[3:],
		"empty":           "",
		"token":           strings.Replace(k.Ticket, "alice@pbs", "alice@pbs!tok", 1),
		"unknown user":    strings.Replace(k.Ticket, "alice@pbs", "nobody@pbs", 1),
		"huge":            strings.Repeat("A", 1<<20),
	} {
		refused(t, s, withTicket(Ticket{Ticket: forged, CSRF: k.CSRF}), name)
	}
	other, _ := open(t)
	must(t, other.CreateUser(user("alice@pbs"), "a secret"))
	refused(t, other, withTicket(k), "ticket of another server")
	accepted(t, s, withTicket(k), "alice@pbs")
}

func TestCSRF(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"), s.CreateUser(user("bob@pbs"), "a secret"))
	k := login(t, s, "alice@pbs", "a secret")
	bob := login(t, s, "bob@pbs", "a secret")
	for _, csrf := range []string{"", "x", ":", k.CSRF + "A", k.CSRF[:9], bob.CSRF, strings.ToLower(k.CSRF), strings.Repeat("0", 1<<16)} {
		for _, method := range []string{"POST", "PUT", "DELETE", "HEAD", "get", ""} {
			c := withTicket(k)
			c.Method, c.CSRF = method, csrf
			refused(t, s, c, method+" with "+csrf[:min(len(csrf), 20)])
		}
		c := withTicket(k)
		c.Method, c.CSRF = "GET", csrf
		accepted(t, s, c, "alice@pbs")
	}
}

func TestCookies(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"), s.CreateUser(user("bob@pbs"), "a secret"))
	var k Ticket
	for !strings.Contains(k.Ticket, "+") { // it must show what happens to "+"
		must(t, s.SetPassword("alice@pbs", "a secret"))
		k = login(t, s, "alice@pbs", "a secret")
	}
	bob := login(t, s, "bob@pbs", "a secret").Ticket
	for _, cookies := range [][]string{
		{"PBSAuthCookie=" + k.Ticket},
		{"PBSAuthCookie=" + url.QueryEscape(k.Ticket)},
		{"PBSAuthCookie=" + strings.ReplaceAll(k.Ticket, ":", "%3a")},
		{"__Host-PBSAuthCookie=" + k.Ticket},
		{"a=b; PBSAuthCookie=" + k.Ticket + "; path=/; secure; SameSite=Strict;"},
		{"a=b", "x;;=;PBSAuthCookie=" + k.Ticket},
		{"PBSAuthCookie=" + bob + "; __Host-PBSAuthCookie=" + k.Ticket},
		{"PBSAuthCookie=" + bob, "__Host-PBSAuthCookie=" + k.Ticket},
		{"PBSAuthCookie=" + k.Ticket + ";PBSAuthCookie=" + bob},
		{"XPBSAuthCookie=x; pbsauthcookie=x; PBSAuthCookie=" + k.Ticket},
	} {
		accepted(t, s, Credentials{Method: "GET", Cookies: cookies}, "alice@pbs")
	}
	for _, cookies := range [][]string{
		{"PBSAuthCookie="}, {"PBSAuthCookie=%zz"}, {"PBSAuthCookie=" + strings.ReplaceAll(k.Ticket, "+", " ")},
		{"__Host-PBSAuthCookie=; PBSAuthCookie=" + k.Ticket}, {"PBSAuthCookie"}, {"pbsauthcookie=" + k.Ticket},
		{"PBSAuthCookie=\"" + k.Ticket + "\""}, {""}, nil,
	} {
		refused(t, s, Credentials{Method: "GET", Cookies: cookies}, strings.Join(cookies, " | "))
	}
}

func TestAuthorizationHeader(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), ""))
	secret := token(t, s, "alice@pbs!nightly")
	for _, h := range []string{
		"PBSAPIToken=alice@pbs!nightly:" + secret,
		"PBSAPIToken alice@pbs!nightly:" + secret,
		"PBSAPIToken alice@pbs!nightly:" + strings.ReplaceAll(secret, "-", "%2D"),
		"PBSAPIToken=alice@pbs!nightly:" + strings.ReplaceAll(secret, "-", "%2d"),
	} {
		accepted(t, s, Credentials{Method: "DELETE", Authorization: h}, "alice@pbs!nightly")
	}
	for _, h := range []string{
		"", "PBSAPIToken", "PBSAPIToken=", "PBSAPIToken=:", "PBSAPIToken=alice@pbs!nightly", "PBSAPIToken=alice@pbs!nightly:",
		"pbsapitoken=alice@pbs!nightly:" + secret, "PBSAPIToken:alice@pbs!nightly:" + secret, "PBSAPIToken  alice@pbs!nightly:" + secret,
		"PBSAPITokenalice@pbs!nightly:" + secret, "PBSAPIToken=alice@pbs:" + secret, "PBSAPIToken=alice@pbs!nightly:" + secret + "x",
		"PBSAPIToken=alice@pbs!nightly: " + secret, "PBSAPIToken=alice@pbs%21nightly:" + secret, "PBSAPIToken=alice@pbs!nightly:%" + secret,
		"PBSAPIToken=alice@pbs!nightly:" + strings.ToUpper(secret), "PBSAPIToken=alice@pbs!other:" + secret,
		"PBSAPIToken=bob@pbs!nightly:" + secret, "Basic " + secret, "PBSAPIToken=alice@pbs!nightly:" + strings.Repeat("x", 1<<20),
	} {
		c := Credentials{Method: "GET", Authorization: h}
		refused(t, s, c, h[:min(len(h), 80)])
		if _, err := s.Authenticate(c); strings.Contains(err.Error(), secret) {
			t.Errorf("the error has the secret in it: %v", err)
		}
	}
}

func TestCookieDecides(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	secret := token(t, s, "alice@pbs!nightly")
	c := withToken("alice@pbs!nightly", secret)
	c.Cookies = []string{"PBSAuthCookie=nonsense"}
	refused(t, s, c, "a bad cookie beside a good token")
	k := login(t, s, "alice@pbs", "a secret")
	c.Cookies, c.CSRF = []string{"PBSAuthCookie=" + k.Ticket}, k.CSRF
	accepted(t, s, c, "alice@pbs")
	c.Authorization = "nonsense"
	accepted(t, s, c, "alice@pbs")
}

func TestLogin(t *testing.T) {
	s, c := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"), s.CreateUser(user("bob@pbs"), "a secret"), s.CreateUser(user("none@pbs"), ""))
	secret := token(t, s, "alice@pbs!nightly")
	k := login(t, s, "alice@pbs", "a secret")
	c.add(time.Hour)
	renewed := login(t, s, "alice@pbs", k.Ticket)
	if renewed.Ticket == k.Ticket {
		t.Error("the renewed ticket is the old one")
	}
	c.add(time.Hour + time.Minute)
	refused(t, s, withTicket(k), "the first ticket")
	accepted(t, s, withTicket(renewed), "alice@pbs")
	for name, tc := range map[string]struct {
		user     wire.AuthID
		password string
		want     error
	}{
		"wrong":                {"alice@pbs", "a Secret", wire.ErrUnauthenticated},
		"empty":                {"alice@pbs", "", wire.ErrUnauthenticated},
		"long":                 {"alice@pbs", strings.Repeat("x", 1<<20), wire.ErrUnauthenticated},
		"hash":                 {"alice@pbs", s.config.Load().users["alice@pbs"].Password, wire.ErrUnauthenticated},
		"other realm":          {"alice@pam", "a secret", wire.ErrUnauthenticated},
		"unknown realm":        {"alice@ldap", "a secret", wire.ErrUnauthenticated},
		"unknown":              {"nobody@pbs", "a secret", wire.ErrUnauthenticated},
		"no password":          {"none@pbs", "", wire.ErrUnauthenticated},
		"root has none":        {"root@pam", "", wire.ErrUnauthenticated},
		"ticket of another":    {"bob@pbs", renewed.Ticket, wire.ErrUnauthenticated},
		"token":                {"alice@pbs!nightly", secret, wire.ErrName},
		"secret as a password": {"alice@pbs", secret, wire.ErrUnauthenticated},
		"no realm":             {"alice", "a secret", wire.ErrName},
	} {
		got, err := s.Login(t.Context(), tc.user, tc.password, netip.Addr{})
		if !errors.Is(err, tc.want) || got != (Ticket{}) {
			t.Errorf("%s: %v", name, err)
		}
		if tc.password != "" && strings.Contains(err.Error(), tc.password) {
			t.Errorf("%s: the error has the password in it", name)
		}
		s.brake = newBrake()
	}
	must(t, s.SetUser(User{ID: "alice@pbs"}))
	if _, err := s.Login(t.Context(), "alice@pbs", "a secret", netip.Addr{}); !errors.Is(err, wire.ErrUnauthenticated) {
		t.Errorf("disabled: %v", err)
	}
}

func TestHashText(t *testing.T) {
	h := newHasher(0)
	h.cost = cost{memory: 64, passes: 2, lanes: 3}
	text, err := h.hash("a secret", &source{r: strings.NewReader("0123456789abcdef")})
	must(t, err)
	if !strings.HasPrefix(text, "$argon2id$v=19$m=64,t=2,p=3$MDEyMzQ1Njc4OWFiY2RlZg$") {
		t.Error(text)
	}
	h.cost = cost{memory: 8, passes: 1, lanes: 1} // the numbers in the text count
	if !h.matches("a secret", text) || h.matches("a Secret", text) || h.matches("", "") || h.matches("a secret", text[1:]) {
		t.Error("matches is wrong")
	}
	p, err := parseHash(text)
	if err != nil || p.String() != text {
		t.Errorf("%v, %v", p, err)
	}
	for _, bad := range []string{
		"", "a secret", "$argon2i$" + text[10:], strings.Replace(text, "v=19", "v=16", 1), strings.Replace(text, "m=64", "m=262145", 1),
		strings.Replace(text, "m=64", "m=0", 1), strings.Replace(text, "t=2", "t=11", 1), strings.Replace(text, "t=2", "t=0", 1),
		strings.Replace(text, "p=3", "p=9", 1), strings.Replace(text, "p=3", "p=0", 1), strings.Replace(text, "p=3", "p=-1", 1),
		strings.Replace(text, ",t=2", "", 1), strings.Replace(text, "MDEyMzQ1Njc4OWFiY2RlZg", "MDEy", 1), text[:len(text)-4], text + "$",
		text + strings.Repeat("A", 300),
	} {
		if _, err := parseHash(bad); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

func TestDefaultCost(t *testing.T) {
	h := newHasher(0)
	text, err := h.hash("a secret", &source{r: strings.NewReader("0123456789abcdef")})
	if err != nil || !strings.Contains(text, "$m=65536,t=1,p=1$") || !h.matches("a secret", text) {
		t.Errorf("%s, %v", text, err)
	}
}

func FuzzTicket(f *testing.F) {
	s, _ := open(f)
	k := s.config.Load().issue("root@pam", 1, line{began: 1})
	for _, seed := range []string{k.Ticket, "PBS:a@pbs:00000000::AAAA", "PBS:%3A@pbs:FFFFFFFF::", "PBS::::", "PBS:!tfa!x:00000000::QQ"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseTicket(text)
		if err != nil {
			return
		}
		if again := ticketPrefix + ":" + encodeUser(string(p.user)) + ":" + time8(p.issued) + "::" + base64.RawStdEncoding.EncodeToString(append(p.line.bytes(), p.sum...)); again != text {
			t.Fatalf("%q is %q as well", text, again)
		}
		if text != k.Ticket && s.config.Load().genuine(p) {
			t.Fatalf("%q was never issued", text)
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	for _, seed := range []string{"PBSAPIToken=a@pbs!tok:x", "PBSAPIToken a@pbs!tok:%2D:", "PBSAPIToken", "PBSAPIToken=:", "Basic x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, h string) {
		id, secret, err := parseAuthorization(h)
		if err != nil {
			if id != "" && secret != "" || !errors.Is(err, errAuthorization) {
				t.Fatalf("%q, %v", id, err)
			}
			return
		}
		again, same, err := parseAuthorization("PBSAPIToken=" + string(id) + ":" + url.PathEscape(secret))
		if len(h)+2*len(secret) <= authorizationMax && (err != nil || again != id || same != secret) {
			t.Fatalf("%q became %q, %q, %v", h, again, same, err)
		}
	})
}

func FuzzCookie(f *testing.F) {
	s, _ := open(f)
	k := s.config.Load().issue("root@pam", s.now().Unix(), line{began: s.now().Unix()})
	for _, seed := range []string{"PBSAuthCookie=" + k.Ticket, "__Host-PBSAuthCookie=%50; a", ";;=;", "PBSAuthCookie"} {
		f.Add(seed, "x=y")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		p, err := s.Authenticate(Credentials{Method: "GET", Cookies: []string{a, b}})
		id := p.ID
		if (err == nil) != (id == "root@pam") || err != nil && !errors.Is(err, wire.ErrUnauthenticated) {
			t.Fatalf("%q, %v", id, err)
		}
		raw, found := ticketCookie([]string{a, b})
		if found && (strings.Contains(raw, ";") || !strings.Contains(a+b, raw)) {
			t.Fatalf("%q is not in %q, %q", raw, a, b)
		}
		if err == nil && !found {
			t.Fatal("accepted without a cookie")
		}
	})
}

// Tickets can be had for tickets for a day, whatever is done with them.
func TestTicketsAreNotRenewedForEver(t *testing.T) {
	s, c := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	k := login(t, s, "alice@pbs", "a secret")
	begin := c.now()
	for c.now().Sub(begin) < lineMax*time.Second {
		next, err := s.Login(t.Context(), "alice@pbs", k.Ticket, netip.Addr{})
		if err != nil {
			t.Fatalf("after %s: %v", c.now().Sub(begin), err)
		}
		k = next
		c.add(time.Hour)
	}
	c.add(time.Second)
	if _, err := s.Login(t.Context(), "alice@pbs", k.Ticket, netip.Addr{}); !errors.Is(err, wire.ErrUnauthenticated) {
		t.Errorf("renewed after a day: %v", err)
	}
	refused(t, s, withTicket(k), "the last ticket of the line")
	login(t, s, "alice@pbs", "a secret")
}

// Logging out ends the ticket and those that it was renewed to, and no other
// login of the same user.
func TestLogoutEndsTheTickets(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	here, there := login(t, s, "alice@pbs", "a secret"), login(t, s, "alice@pbs", "a secret")
	renewed, err := s.Login(t.Context(), "alice@pbs", here.Ticket, netip.Addr{})
	must(t, err)
	forged := withTicket(Ticket{Ticket: here.Ticket[:len(here.Ticket)-3] + "AAA", CSRF: here.CSRF})
	must(t, s.Logout(forged))
	must(t, s.Logout(Credentials{}))
	accepted(t, s, withTicket(here), "alice@pbs")
	must(t, s.Logout(withTicket(here)))
	refused(t, s, withTicket(here), "the ticket")
	refused(t, s, withTicket(renewed), "what it was renewed to")
	if _, err := s.Login(t.Context(), "alice@pbs", renewed.Ticket, netip.Addr{}); !errors.Is(err, wire.ErrUnauthenticated) {
		t.Errorf("renewed after logging out: %v", err)
	}
	accepted(t, s, withTicket(there), "alice@pbs")
}

// Who has logged out stays logged out, whatever becomes of the server.
func TestLogoutOutlivesTheServer(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "access.db"), &clock{t: time.Unix(1_800_000_000, 0)}
	s := openAt(t, path, c)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	here, there := login(t, s, "alice@pbs", "a secret"), login(t, s, "alice@pbs", "a secret")
	must(t, s.Logout(withTicket(here)), s.Logout(withTicket(here)), s.Close())
	s = openAt(t, path, c)
	refused(t, s, withTicket(here), "the ticket after a restart")
	accepted(t, s, withTicket(there), "alice@pbs")
}

// Logging out fills no file: of each user so many are remembered, those that could
// still be used, and one more ends all.
func TestLogoutsAreBounded(t *testing.T) {
	s, c := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"), s.CreateUser(user("bob@pbs"), "b secret"))
	leave := func(n int) {
		for range n {
			must(t, s.Logout(withTicket(login(t, s, "alice@pbs", "a secret"))))
		}
	}
	leave(endedMax)
	c.add(lineMax*time.Second + time.Second)
	stays := login(t, s, "alice@pbs", "a secret")
	leave(endedMax)
	if got := len(s.config.Load().users["alice@pbs"].Ended); got != endedMax {
		t.Errorf("%d lines, want those of the last day: %d", got, endedMax)
	}
	accepted(t, s, withTicket(stays), "alice@pbs")
	leave(1)
	if got := len(s.config.Load().users["alice@pbs"].Ended); got != 0 {
		t.Errorf("%d lines after everything has ended", got)
	}
	refused(t, s, withTicket(stays), "a ticket of one who logs out all the time")
	bob := login(t, s, "bob@pbs", "b secret")
	accepted(t, s, withTicket(bob), "bob@pbs")
}

// A logout that cannot be written down is one all the same, and says so.
func TestLogoutThatIsNotWritten(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	k := login(t, s, "alice@pbs", "a secret")
	s.file.frozen = errors.New("the disk is read-only")
	if err := s.Logout(withTicket(k)); !errors.Is(err, chunkstore.ErrReadOnly) {
		t.Errorf("nothing was written, and the answer is %v", err)
	}
	refused(t, s, withTicket(k), "the ticket")
}
