package server

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

// begunRequest is a request whose head has been taken and whose body has not come.
type begunRequest struct {
	t    *testing.T
	conn *tls.Conn
	in   *bufio.Reader
	body string
}

// begun sends the head of a request and waits until the server wants the body, which it
// does when it has looked at the credentials.
func (l *lab) begun(verb, target, credentials, body string) *begunRequest {
	l.t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(l.base, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testWait))
	b := &begunRequest{t: l.t, conn: conn, in: bufio.NewReader(conn), body: body}
	_, err = fmt.Fprintf(conn, "%s /api2/json%s HTTP/1.1\r\nHost: x\r\n%sExpect: 100-continue\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n",
		verb, target, credentials, len(body))
	if err != nil {
		l.t.Fatal(err)
	}
	if line, err := b.in.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		l.t.Fatalf("%s %s: %q, %v", verb, target, line, err)
	}
	if _, err := b.in.ReadString('\n'); err != nil {
		l.t.Fatal(err)
	}
	return b
}

// end sends the body and returns the answer.
func (b *begunRequest) end() (int, string) {
	b.t.Helper()
	if _, err := io.WriteString(b.conn, b.body); err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.ReadResponse(b.in, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// A request that was begun with good credentials does nothing when they are good no more by
// the time its body has come, which its sender delays as he likes. Else who has stolen a
// ticket sets a password of his own after the owner has thrown him out.
func TestNoRequestOutlivesItsCredentials(t *testing.T) {
	template := newRightsTemplate(t)
	l := template.lab(t, "tank")
	const self = wire.AuthID("self@pbs")
	ticket := template.tickets[string(self)]
	byTicket := "Cookie: PBSAuthCookie=" + ticket.Ticket + "\r\nCSRFPreventionToken: " + ticket.CSRF + "\r\n"
	byToken := func(id string) string { return "Authorization: PBSAPIToken=" + id + ":" + l.secrets[id] + "\r\n" }
	logTarget := fmt.Sprintf("%s/upload-backup-log?backup-type=vm&backup-time=%d&backup-id=", tank, rightsOld)
	column := func(name string) int {
		for i, c := range rightsCallers {
			if c.name == name {
				return i
			}
		}
		t.Fatal(name)
		return 0
	}
	body := string(l.sessions().blobOf("a log"))
	thief := []*begunRequest{
		l.begun("PUT", "/access/password", byTicket, "userid=self@pbs&password=of+the+thief"),
		l.begun("POST", "/access/users/self@pbs/token/stolen", byTicket, "comment=x"),
		l.begun("PUT", "/access/acl", byToken("admin@pbs!tok"), "path=/&role=Admin&auth-id=nobody@pbs"),
		l.begun("PUT", "/access/quota", byToken("admin2@pbs!tok"), "subject=nobody@pbs!tok&bytes-max=7"),
		l.begun("POST", logTarget+rightsGroup(column("power")).ID, byToken("power@pbs!tok"), body),
		l.begun("POST", logTarget+rightsGroup(column("backup")).ID, byToken("backup@pbs!tok"), body),
	}
	good := l.begun("POST", logTarget+rightsGroup(column("keeper")).ID, byToken("keeper@pbs!tok"), body)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.access.SetPassword(self, "of the owner"))
	must(l.access.RevokeToken("admin@pbs!tok"))
	_, err := l.access.RegenerateToken("admin2@pbs!tok")
	must(err)
	must(l.access.SetToken(access.Token{ID: "power@pbs!tok", Enabled: false}))
	must(l.access.RemoveACL(access.ACL{Path: "/datastore/tank", Role: "DatastoreBackup", ID: "backup@pbs!tok"}))
	before := [2]string{l.groupState(column("power")), l.groupState(column("backup"))}
	for _, b := range thief {
		if code, text := b.end(); code != http.StatusUnauthorized && code != http.StatusForbidden {
			t.Errorf("%q after all was taken back: %d %s", b.body, code, text)
		}
	}
	if code, text := good.end(); code != http.StatusOK {
		t.Errorf("a log of who may still send it: %d %s", code, text)
	}
	if after := [2]string{l.groupState(column("power")), l.groupState(column("backup"))}; after != before {
		t.Errorf("the groups have changed from\n%s to\n%s", before, after)
	}
	if a := l.call("", "POST", "/access/ticket", "username=self@pbs&password=of+the+owner"); a.code != http.StatusOK {
		t.Errorf("the owner's password: %d", a.code)
	}
	if _, err := l.access.Token(self + "!stolen"); err == nil {
		t.Error("the thief has a token")
	}
	if have, err := l.access.Privileges("nobody@pbs", "/"); err != nil || have != 0 {
		t.Errorf("nobody has %v, %v", have.Names(), err)
	}
}
