package abuse

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// noServerFault fails the test for an answer that blames the server.
func noServerFault(t testing.TB, a answer) {
	t.Helper()
	if a.status >= 500 {
		t.Errorf("the server blames itself: %s", a)
	}
}

// shoot sends bytes over a connection of its own and returns the answer; status
// 0 is a connection that was closed without one.
func (w *world) shoot(t testing.TB, request []byte) answer {
	t.Helper()
	c := w.dial(t)
	defer c.Close()
	a, err := c.say(request)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("no answer to %.100q", request)
	}
	return a
}

// brokenHeads are requests that are no HTTP, or too much of it.
func brokenHeads(as identity) map[string]string {
	get := "GET /api2/json/version HTTP/1.1\r\nHost: x\r\n" + as.header()
	post := "POST /api2/json/access/ticket HTTP/1.1\r\nHost: x\r\nContent-Type: " + formType + "\r\n"
	return map[string]string{
		"a head of 40 KB":              get + "A: " + strings.Repeat("b", 40<<10) + "\r\n\r\n",
		"a head of 10 MB":              get + "A: " + strings.Repeat("b", 10<<20) + "\r\n\r\n",
		"a header name of 40 KB":       get + strings.Repeat("b", 40<<10) + ": x\r\n\r\n",
		"10000 headers":                get + strings.Repeat("A: b\r\n", 10000) + "\r\n",
		"a header without colon":       get + "hello\r\n\r\n",
		"a header without name":        get + ": x\r\n\r\n",
		"a space before the colon":     get + "Content-Length : 5\r\n\r\n",
		"NUL in a header":              get + "A: b\x00c\r\n\r\n",
		"a control byte in a name":     get + "A\x01: b\r\n\r\n",
		"a folded header":              get + "A: b\r\n c\r\n\r\n",
		"a fold first":                 "GET /api2/json/version HTTP/1.1\r\n A: b\r\n\r\n",
		"two hosts":                    get + "Host: y\r\n\r\n",
		"a host that is none":          "GET /api2/json/version HTTP/1.1\r\nHost: a b\r\n\r\n",
		"a target of 4 KB":             "GET /api2/json/" + strings.Repeat("a", 4<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"a target of 20 MB":            "GET /" + strings.Repeat("a", 20<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"a query of 4 KB":              "GET /api2/json/version?" + strings.Repeat("a", 4<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"a target with a space":        "GET /api2/json/ver sion HTTP/1.1\r\nHost: x\r\n\r\n",
		"no target":                    "GET HTTP/1.1\r\nHost: x\r\n\r\n",
		"a target without slash":       "GET api2 HTTP/1.1\r\nHost: x\r\n\r\n",
		"an absolute target":           "GET http://evil/api2/json/nothing HTTP/1.1\r\nHost: x\r\n\r\n",
		"a star":                       "GET * HTTP/1.1\r\nHost: x\r\n\r\n",
		"a bad escape":                 "GET /api2/json/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"half an escape":               "GET /api2/json/version% HTTP/1.1\r\nHost: x\r\n\r\n",
		"an escaped NUL":               "GET /api2/json/%00 HTTP/1.1\r\nHost: x\r\n" + as.header() + "\r\n",
		"a raw NUL":                    "GET /api2/json/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
		"bytes that are no UTF-8":      "GET /api2/json/\xff\xfe HTTP/1.1\r\nHost: x\r\n" + as.header() + "\r\n",
		"escaped dots":                 "GET /api2/json/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n" + as.header() + "\r\n",
		"dots":                         "GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n" + as.header() + "\r\n",
		"a bad query":                  "GET /api2/json/version?%zz HTTP/1.1\r\nHost: x\r\n" + as.header() + "\r\n",
		"a semicolon in a query":       "GET /api2/json/version?a=1;b=2 HTTP/1.1\r\nHost: x\r\n" + as.header() + "\r\n",
		"1000 parameters":              "GET /api2/json/version?" + strings.Repeat("a&", 1000) + " HTTP/1.1\r\nHost: x\r\n" + as.header() + "\r\n",
		"HTTP/9.9":                     "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
		"HTTP/2.0 in words":            "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
		"no version":                   "GET /\r\n\r\n",
		"a method of 30 KB":            strings.Repeat("A", 30<<10) + " / HTTP/1.1\r\nHost: x\r\n\r\n",
		"a method of odd bytes":        "G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
		"a method that is unknown":     "BREW /api2/json/version HTTP/1.1\r\nHost: x\r\n" + as.header() + "\r\n",
		"CONNECT":                      "CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n",
		"TRACE":                        "TRACE /api2/json/version HTTP/1.1\r\nHost: x\r\n\r\n",
		"empty lines":                  strings.Repeat("\r\n", 5000),
		"a negative length":            post + "Content-Length: -1\r\n\r\n",
		"a length with a sign":         post + "Content-Length: +5\r\n\r\nabcde",
		"a huge length":                post + "Content-Length: 9223372036854775807\r\n\r\n",
		"a length beyond":              post + "Content-Length: 99999999999999999999\r\n\r\n",
		"a length that is none":        post + "Content-Length: five\r\n\r\n",
		"two lengths":                  post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
		"a list of lengths":            post + "Content-Length: 5, 5\r\n\r\nabcde",
		"a length and chunks":          post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a coding that is unknown":     post + "Transfer-Encoding: rot13\r\n\r\nabc",
		"two codings":                  post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"two codings in two headers":   post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a chunk size that is none":    post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
		"a negative chunk":             post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
		"a chunk of 2^64":              post + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nx",
		"a chunk with a long comment":  post + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("a", 100000) + "\r\nx\r\n0\r\n\r\n",
		"a chunk that is too long":     post + "Transfer-Encoding: chunked\r\n\r\n1\r\nxxxx\r\n0\r\n\r\n",
		"an endless trailer":           post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("A: b\r\n", 20000) + "\r\n",
		"an upgrade to nothing":        get + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"a content type that is none":  "POST /api2/json/access/ticket HTTP/1.1\r\nHost: x\r\nContent-Type: \x80/;;=\"\r\nContent-Length: 1\r\n\r\nx",
		"a body that is gzip":          post + "Content-Encoding: gzip\r\n" + string(withBody("", formType, gzipped(1<<20))),
		"an authorization of 20 KB":    "GET /api2/json/version HTTP/1.1\r\nHost: x\r\nAuthorization: PBSAPIToken=" + strings.Repeat("a", 20<<10) + "\r\n\r\n",
		"a cookie of 20 KB":            "GET /api2/json/version HTTP/1.1\r\nHost: x\r\nCookie: PBSAuthCookie=" + strings.Repeat("a", 20<<10) + "\r\n\r\n",
		"a ticket of many colons":      "GET /api2/json/version HTTP/1.1\r\nHost: x\r\nCookie: PBSAuthCookie=" + strings.Repeat(":", 2000) + "\r\n\r\n",
		"a token that is a traversal":  "GET /api2/json/version HTTP/1.1\r\nHost: x\r\nAuthorization: PBSAPIToken=../../x@pbs!y:z\r\n\r\n",
		"a token with a bad escape":    "GET /api2/json/version HTTP/1.1\r\nHost: x\r\nAuthorization: PBSAPIToken=a@pbs!t:%zz\r\n\r\n",
		"the preface of HTTP/2":        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"the preface of HTTP/2, wrong": "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
	}
}

func gzipped(n int) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(make([]byte, n))
	z.Close()
	return b.Bytes()
}

// Heads and bodies that no client would send.
func TestMalformedHeads(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for name, text := range brokenHeads(w.alice) {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			w.brokenHead(t, name, text)
		})
	}
	all.Wait()
	w.alive(t)
}

// brokenHead sends a text and fails the test unless it is answered, or the
// connection closed.
func (w *world) brokenHead(t testing.TB, name, text string) {
	c, err := dial("", w.address)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	go func() {
		io.WriteString(c, text)
		c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	method, _, _ := strings.Cut(text, " ")
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.Errorf("%s: neither answer nor end", name)
	case err == nil && r.StatusCode >= 500 && r.StatusCode != http.StatusHTTPVersionNotSupported && r.StatusCode != http.StatusNotImplemented:
		t.Errorf("%s: answered with %s", name, r.Status)
	}
}

// wrongBodies are parameters that are too many, too large or of another kind.
func wrongBodies() map[string][2]string {
	deep := func(open, end string, n int) string { return strings.Repeat(open, n) + strings.Repeat(end, n) }
	const most = 512 << 10
	return map[string][2]string{
		"a form beyond the limit":     {formType, "username=" + strings.Repeat("a", most)},
		"a form at the limit":         {formType, "username=" + strings.Repeat("a", most-9)},
		"a form of 20 MB":             {formType, "username=" + strings.Repeat("a", 20<<20)},
		"100000 fields":               {formType, strings.Repeat("a&", 100000)},
		"100000 names":                {formType, names(100000)},
		"a form of escapes":           {formType, "username=" + strings.Repeat("%41", 100000)},
		"a form with a bad escape":    {formType, "username=%zz"},
		"a form of noise":             {formType, string(noise(1, 5000))},
		"JSON beyond the limit":       {jsonType, `{"username":"` + strings.Repeat("a", most) + `"}`},
		"JSON of spaces":              {jsonType, strings.Repeat(" ", most)},
		"JSON with 100000 members":    {jsonType, "{" + strings.TrimSuffix(strings.Repeat(`"a":1,`, 80000), ",") + "}"},
		"arrays in arrays":            {jsonType, `{"username":` + deep("[", "]", 100000) + "}"},
		"objects in objects":          {jsonType, `{"username":` + strings.Repeat(`{"a":`, 50000) + "1" + strings.Repeat("}", 50000) + "}"},
		"arrays without end":          {jsonType, strings.Repeat("[", 200000)},
		"objects without end":         {jsonType, strings.Repeat(`{"a":`, 100000)},
		"an array":                    {jsonType, `[1,2,3]`},
		"a string":                    {jsonType, `"username"`},
		"a number":                    {jsonType, `1e400`},
		"null":                        {jsonType, `null`},
		"two objects":                 {jsonType, `{"username":"a@pbs","password":"x"}{}`},
		"half an object":              {jsonType, `{"username":"a@pbs","pass`},
		"the same member twice":       {jsonType, `{"username":"a@pbs","username":"b@pbs","password":"x"}`},
		"a member of another kind":    {jsonType, `{"username":5,"password":{"a":1}}`},
		"a number that is too long":   {jsonType, `{"username":"a@pbs","password":"x","port":` + strings.Repeat("9", 100000) + `}`},
		"a number with exponent":      {jsonType, `{"username":"a@pbs","password":"x","port":1e3000000}`},
		"a fraction":                  {jsonType, `{"username":"a@pbs","password":"x","port":1.5}`},
		"a lone surrogate":            {jsonType, `{"username":"\ud800","password":"x"}`},
		"an escaped NUL":              {jsonType, `{"username":"\u0000@pbs","password":"x"}`},
		"bytes that are no UTF-8":     {jsonType, "{\"username\":\"\xff@pbs\",\"password\":\"x\"}"},
		"JSON of noise":               {jsonType, string(noise(2, 5000))},
		"a byte order mark":           {jsonType, "\xef\xbb\xbf{}"},
		"parts":                       {"multipart/form-data; boundary=x", "--x\r\n\r\n--x--"},
		"XML":                         {"text/xml", `<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>`},
		"a content type with garbage": {"application/json; charset=\"", "{}"},
	}
}

// names is a form of n different fields.
func names(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.Itoa(i) + "&")
	}
	return b.String()
}

func TestMalformedBodies(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	for name, b := range wrongBodies() {
		request := withBody(head(identity{}, "POST", "/access/ticket"), b[0], []byte(b[1]))
		if a := w.shoot(t, request); a.status != 0 && a.status != 400 && a.status != 401 {
			t.Errorf("%s: %s", name, a)
		}
		// The same without telling the length.
		chunked := fmt.Sprintf("%sContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
			head(identity{}, "POST", "/access/ticket"), b[0], len(b[1]), b[1])
		if a := w.shoot(t, []byte(chunked)); a.status != 0 && a.status != 400 && a.status != 401 {
			t.Errorf("%s, chunked: %s", name, a)
		}
	}
	w.alive(t)
}

// oddNumbers are what a number may not be.
var oddNumbers = []string{"-1", "0", "-9223372036854775808", "9223372036854775807", "9223372036854775808", "18446744073709551616",
	"99999999999999999999999999999999", "1e9", "1.0", "0x10", "010", "+1", " 1", "1 ", "", "NaN", "Infinity", "１", "1\x00", "--1", "4294967296", "2147483648"}

// numbers are the methods that take numbers, with a place for one.
var numbers = []struct {
	method, path string
	kv           []string
}{
	{"GET", "/nodes/localhost/tasks", []string{"start"}}, {"GET", "/nodes/localhost/tasks", []string{"limit"}},
	{"GET", "/nodes/localhost/tasks", []string{"since"}}, {"GET", "/nodes/localhost/tasks", []string{"until"}},
	{"GET", "/admin/datastore/" + store + "/namespace", []string{"max-depth"}},
	{"GET", "/admin/datastore/" + store + "/files", []string{"backup-type", "vm", "backup-id", "1", "backup-time"}},
	{"GET", "/admin/datastore/" + store + "/notes", []string{"backup-type", "vm", "backup-id", "1", "backup-time"}},
	{"DELETE", "/admin/datastore/" + store + "/snapshots", []string{"backup-type", "vm", "backup-id", "1", "backup-time"}},
	{"GET", "/admin/datastore/" + store + "/download", []string{"backup-type", "vm", "backup-id", "1", "file-name", "a.blob", "backup-time"}},
	{"POST", "/admin/datastore/" + store + "/upload-backup-log", []string{"backup-type", "vm", "backup-id", "1", "backup-time"}},
	{"POST", "/admin/datastore/" + store + "/prune", []string{"backup-type", "vm", "backup-id", "1", "dry-run", "1", "keep-last"}},
	{"POST", "/admin/datastore/" + store + "/prune", []string{"backup-type", "vm", "backup-id", "1", "dry-run", "1", "keep-yearly"}},
	{"POST", "/admin/datastore/" + store + "/prune-datastore", []string{"keep-last", "1", "dry-run", "1", "max-depth"}},
	{"POST", "/admin/datastore/" + store + "/verify", []string{"outdated-after"}}, {"POST", "/admin/datastore/" + store + "/verify", []string{"read-threads"}},
	{"PUT", "/access/quota", []string{"subject", "alice@pbs", "bytes-max"}}, {"PUT", "/access/quota", []string{"subject", "alice@pbs", "snapshots-per-day"}},
	{"PUT", "/access/users/bob@pbs", []string{"expire"}}, {"POST", "/access/ticket", []string{"username", "a@pbs", "password", "x", "port"}},
}

func TestOddNumbers(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	var all sync.WaitGroup
	for _, m := range numbers {
		all.Go(func() {
			for _, n := range oddNumbers {
				a, err := w.tryAsk("", w.admin, m.method, m.path, append(append([]string{}, m.kv...), n)...)
				if err != nil {
					t.Error(err)
					return
				}
				noServerFault(t, a)
			}
		})
	}
	all.Wait()
	for _, protocol := range []string{backupProtocol, readerProtocol} {
		for _, n := range oddNumbers {
			path := map[string]string{backupProtocol: "/backup", readerProtocol: "/reader"}[protocol]
			request := head(w.alice, "GET", path, "store", store, "backup-type", "vm", "backup-id", "1", "backup-time", n) +
				"Connection: upgrade\r\nUpgrade: " + protocol + "\r\n\r\n"
			noServerFault(t, w.shoot(t, []byte(request)))
		}
	}
	w.alive(t)
}

// wrongMessages are requests of a backup session that must be refused. wid is
// that of a dynamic index, fixed of a fixed one with room for one chunk.
func wrongMessages(wid, fixed int) map[string]message {
	c := plainChunk(noise(1, 3000))
	all := map[string]message{}
	say := func(name string, m message, name2, value string) {
		kv := append([]string{}, m.kv...)
		for i := 0; i+1 < len(kv); i += 2 {
			if kv[i] == name2 {
				kv[i+1] = value
			}
		}
		m.kv = kv
		all[name] = m
	}
	for _, n := range oddNumbers {
		if n == "+1" || n == "010" {
			continue // these are numbers for who reads them so
		}
		for _, p := range []string{"size", "encoded-size", "wid"} {
			say("chunk with "+p+" "+n, chunkMessage("dynamic", wid, c), p, n)
		}
		for _, p := range []string{"chunk-count", "size", "wid"} {
			say("close with "+p+" "+n, closeMessage(wid, archive{"a.didx", []chunk{c}}), p, n)
		}
		if n != "9223372036854775807" && n != "4294967296" && n != "2147483648" {
			all["fixed index of "+n] = message{method: "POST", path: "/fixed_index", kv: []string{"archive-name", "x.img.fidx", "size", n}}
		}
		say("blob of "+n, blobMessage("a.blob", c.blob), "encoded-size", n)
		for _, list := range []string{`{"wid":%d,"digest-list":["%s"],"offset-list":[%s]}`, `{"wid":%d,"digest-list":["%s","%[2]s"],"offset-list":[0,%[3]s]}`} {
			all["offset "+n+" in "+list] = message{method: "PUT", path: "/fixed_index", contentType: jsonType, body: fmt.Appendf(nil, list, fixed, c.digest, n)}
		}
	}
	for name, blob := range map[string][]byte{
		"nothing": {}, "a byte": {1}, "half a header": c.blob[:6], "a header": c.blob[:12], "cut": c.blob[:1000],
		"longer": append(bytes.Clone(c.blob), 1), "much longer": make([]byte, chunkMax+100), "noise": noise(2, len(c.blob)), "zeros": make([]byte, len(c.blob)),
		"another kind": append([]byte(magicZstd), c.blob[8:]...), "a sealed header cut": append([]byte(magicSealed), make([]byte, 30)...),
	} {
		m := chunkMessage("dynamic", wid, c)
		m.body = blob
		all["a body that is "+name] = m
		told := chunk{c.digest, c.size, blob}
		all["a body that is "+name+" and says so"] = chunkMessage("dynamic", wid, told)
		all["a blob of "+name+" and no magic"] = blobMessage("index.json.blob", append([]byte("notmagic"), blob...))
	}
	for name, body := range map[string]string{
		"nesting": strings.Repeat("[", 100000), "nested digests": `{"wid":1,"digest-list":` + strings.Repeat("[", 50000) + strings.Repeat("]", 50000) + `,"offset-list":[]}`,
		"too long": strings.Repeat(" ", 513<<10), "noise": string(noise(3, 1000)), "null": `{"wid":null,"digest-list":null,"offset-list":null}`,
		"different lengths": fmt.Sprintf(`{"wid":%d,"digest-list":["%s"],"offset-list":[]}`, wid, c.digest), "a list of objects": fmt.Sprintf(`{"wid":%d,"digest-list":[{}],"offset-list":[{}]}`, wid),
		"huge lists": fmt.Sprintf(`{"wid":%d,"digest-list":[%s""],"offset-list":[%s0]}`, wid, strings.Repeat(`"",`, 80000), strings.Repeat("0,", 80000)),
	} {
		all["append of "+name] = message{method: "PUT", path: "/dynamic_index", contentType: jsonType, body: []byte(body)}
	}
	return all
}

// A session refuses what is wrong and goes on.
func TestMalformedMessages(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	of := snap{"host", "wrong", began}
	s := w.session(t, w.alice, backupProtocol, of)
	wid, err := s.createIndex("wrong.didx")
	if err != nil {
		t.Fatal(err)
	}
	fixed, err := s.createIndex("wrong.img.fidx", "size", "3000")
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range wrongMessages(wid, fixed) {
		a, err := s.try(m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if a.status < 400 || a.status > 499 {
			t.Errorf("%s: %s", name, a)
		}
	}
	s.Close()
	harness.Eventually(t, "the next backup", func() bool { return w.honest(0) == nil })
	if l := w.listed(t, w.alice, of); len(l) > 0 {
		t.Errorf("listed: %v", l)
	}
}

// What is sent to the TLS port instead of TLS is answered, or the connection is
// closed.
func TestPlainText(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	var all sync.WaitGroup
	for i, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /" + strings.Repeat("a", 1<<20), string(noise(1, 100000)), "\x16\x03\x01\xff\xff" + string(noise(2, 70000)),
		"\x16\x03\x01\x00\x00", "\x80\x80\x01\x03\x01", "SSH-2.0-x\r\n", "\x15\x03\x03\x00\x02\x02\x28", strings.Repeat("\x16\x03\x01\x00\x01\x01", 5000)} {
		all.Go(func() {
			c, err := net.Dial("tcp", w.address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			go io.WriteString(c, text)
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("text %d: neither answer nor end", i)
			}
		})
	}
	all.Wait()
	w.alive(t)
}
