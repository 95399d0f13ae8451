package interop

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// pruned is one element of the answer to prune, section 4.5.
type pruned struct {
	Type      string `json:"backup-type"`
	ID        string `json:"backup-id"`
	Time      int64  `json:"backup-time"`
	Keep      *bool  `json:"keep"`
	Protected *bool  `json:"protected"`
}

// The same parameters as query, form and JSON, section 1.3.
func TestParametersArriveEveryWay(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	kv := s.group("dry-run", "1", "keep-last", "1")
	path := "/api2/json" + s.at("/prune")
	body := fmt.Sprintf(`{"backup-type":"host","backup-id":%q,"dry-run":true,"keep-last":1}`, s.id)
	half := pairs(kv[:4]).Encode()
	for name, r := range map[string]request{
		"query":               {target: path + "?" + pairs(kv).Encode(), header: []string{formType}},
		"query, no type":      {target: path + "?" + pairs(kv).Encode()},
		"form":                {target: path, header: []string{formType}, body: []byte(pairs(kv).Encode())},
		"form, charset":       {target: path, header: []string{formType + "; charset=UTF-8"}, body: []byte(pairs(kv).Encode())},
		"form and query":      {target: path + "?" + half, header: []string{formType}, body: []byte("dry-run=yes&keep-last=1")},
		"json":                {target: path, header: []string{jsonType}, body: []byte(body)},
		"json, charset":       {target: path, header: []string{jsonType + ";charset=UTF-8"}, body: []byte(body)},
		"json beats query":    {target: path + "?keep-last=x&colour=blue", header: []string{jsonType}, body: []byte(body)},
		"cache buster":        {target: path + "?_dc=1", header: []string{formType}, body: []byte(pairs(kv).Encode())},
		"path beats json":     {target: path, header: []string{jsonType}, body: []byte(strings.Replace(body, "{", `{"store":"attic",`, 1))},
		"empty namespace":     {target: path + "?ns=&" + pairs(kv).Encode()},
		"empty json name":     {target: path, header: []string{jsonType}, body: []byte(strings.Replace(body, "{", `{"ns":"",`, 1))},
		"plus is a space":     {target: path + "?dry-run=1&keep-last=1&backup-type=host&backup-id=" + s.id + "&ns="},
		"percent in the path": {target: strings.Replace(path, "tank", "t%61nk", 1) + "?" + pairs(kv).Encode()},
	} {
		r.method = "POST"
		var got []pruned
		a := server.ask(t, r.as(server.alice))
		if a.status != 200 {
			t.Errorf("%s: %s", name, a)
			continue
		}
		if a.into(t, &got); len(got) != 1 || got[0].Keep == nil || !*got[0].Keep {
			t.Errorf("%s: %s", name, a)
		}
	}
}

func TestParametersBooleans(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	alice := server.rest(server.alice)
	for value, want := range map[string]string{"1": "true", "0": "false", "on": "true", "off": "false", "yes": "true", "no": "false",
		"true": "true", "false": "false", "TRUE": "true", "Off": "false"} {
		alice.query(t, "PUT", s.at("/protected"), s.params("protected", value)...).null(t)
		if d := alice.get(t, s.at("/protected"), s.params()...).data(t); d != want {
			t.Errorf("protected=%s is read as %s", value, d)
		}
	}
	alice.query(t, "PUT", s.at("/protected"), s.params("protected", "0")...).null(t)
	for _, value := range []string{"maybe", "", "2", "-1"} {
		alice.query(t, "PUT", s.at("/protected"), s.params("protected", value)...).refused(t, 400, "protected")
	}
}

func TestParametersRefused(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	path := "/api2/json" + s.at("/prune")
	good := "backup-type=host&dry-run=1&keep-last=1&backup-id=" + s.id
	object := `{"backup-type":"host","dry-run":true,"backup-id":"` + s.id + `"`
	form, jsn := []string{formType}, []string{jsonType}
	for name, c := range map[string]struct {
		r     request
		words []string
	}{
		"unknown in the query":   {request{target: path + "?colour=blue&" + good}, []string{"parameter verification failed - 'colour'", "additional properties"}},
		"unknown in the form":    {request{target: path, header: form, body: []byte(good + "&colour=1")}, []string{"'colour'"}},
		"unknown in the json":    {request{target: path, header: jsn, body: []byte(object + `,"colour":1}`)}, []string{"'colour'"}},
		"repeated in the query":  {request{target: path + "?keep-last=2&" + good}, []string{"keep-last"}},
		"repeated in the form":   {request{target: path, header: form, body: []byte(good + "&backup-type=vm")}, []string{"backup-type"}},
		"repeated in both":       {request{target: path + "?keep-last=1", header: form, body: []byte(good)}, []string{"keep-last"}},
		"also in the path":       {request{target: path + "?store=tank&" + good}, []string{"store", "duplicate parameter"}},
		"also in the path, form": {request{target: path, header: form, body: []byte(good + "&store=tank")}, []string{"store", "duplicate parameter"}},
		"missing":                {request{target: path + "?backup-type=host"}, []string{"backup-id", "missing and it is not optional"}},
		"missing in json":        {request{target: path, header: jsn, body: []byte(`{"backup-type":"host"}`)}, []string{"backup-id", "missing and it is not optional"}},
		"empty json body":        {request{target: path, header: jsn, body: []byte{}}, []string{"backup-id"}},
		"several":                {request{target: path + "?colour=1&shape=2&" + good}, []string{"parameter verification failed:\n- '", "- 'colour': ", "- 'shape': "}},
		"no integer":             {request{target: path + "?backup-type=host&keep-last=many&backup-id=" + s.id}, []string{"keep-last"}},
		"integer too small":      {request{target: path + "?backup-type=host&keep-last=0&backup-id=" + s.id}, []string{"keep-last"}},
		"integer too large":      {request{target: path + "?backup-type=host&keep-last=99999999999999999999&backup-id=" + s.id}, []string{"keep-last"}},
		"cache buster in form":   {request{target: path, header: form, body: []byte(good + "&_dc=1")}, []string{"_dc"}},
		"cache buster in json":   {request{target: path, header: jsn, body: []byte(object + `,"_dc":1}`)}, []string{"_dc"}},
		"json null":              {request{target: path, header: jsn, body: []byte(object + `,"keep-last":null}`)}, []string{"keep-last"}},
		"json string as integer": {request{target: path, header: jsn, body: []byte(object + `,"keep-last":"1"}`)}, []string{"keep-last"}},
		"json string as boolean": {request{target: path, header: jsn, body: []byte(object + `,"use-task":"1"}`)}, []string{"use-task"}},
		"json fraction":          {request{target: path, header: jsn, body: []byte(object + `,"keep-last":1.5}`)}, []string{"keep-last"}},
		"json array":             {request{target: path, header: jsn, body: []byte(`[]`)}, nil},
		"json text":              {request{target: path, header: jsn, body: []byte(`"host"`)}, nil},
		"json broken":            {request{target: path, header: jsn, body: []byte(object)}, nil},
		"json with a tail":       {request{target: path, header: jsn, body: []byte(object + `} {}`)}, nil},
		"text":                   {request{target: path + "?" + good, header: []string{"content-type: text/plain"}}, nil},
		"octets":                 {request{target: path + "?" + good, header: []string{bytesType}}, nil},
		"bad escape":             {request{target: path + "?" + good + "&ns=%zz"}, nil},
		"not utf-8":              {request{target: path + "?" + good + "&ns=%ff%fe"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.r.method = "POST"
			server.ask(t, c.r.as(server.alice)).refused(t, 400, c.words...)
		})
	}
	server.ask(t, request{method: "GET", target: "/api2/json/version", header: []string{"content-type: text/plain"}}.as(server.alice)).refused(t, 400)
}

// A path with its query may have 3072 bytes, section 1.2.
func TestTargetTooLong(t *testing.T) {
	t.Parallel()
	long := func(n int) string {
		target := "/api2/json/version?_dc="
		return target + strings.Repeat("1", n+1-len(target)) // the question mark does not count
	}
	for _, as := range []identity{nobody, server.alice} {
		a := server.ask(t, request{method: "GET", target: long(3073)}.as(as))
		if a.status != 414 || len(a.body) != 0 {
			t.Errorf("%s, a target of 3073 bytes: %s", as.id, a)
		}
	}
	server.ask(t, request{method: "GET", target: long(3072)}.as(server.alice)).want(t, 200)
	server.ask(t, request{method: "GET", target: long(3072)}).refused(t, 401)
	a := server.ask(t, request{method: "GET", target: "/api2/json/" + strings.Repeat("x/", 20000)}.as(server.alice))
	if a.status != 414 && a.status != 431 {
		t.Errorf("a target of 40000 bytes: %s", a)
	}
}

// Bodies with parameters end at 512 KiB, raw ones at their own limits.
func TestBodyTooLarge(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	notes := func(n int) []byte {
		return []byte(url.Values{"notes": {strings.Repeat("n", n)}, "backup-type": {s.kind}, "backup-id": {s.id},
			"backup-time": {fmt.Sprint(s.time)}}.Encode())
	}
	put := request{method: "PUT", target: "/api2/json" + s.at("/notes"), header: []string{formType}}.as(server.alice)
	put.body = notes(60_000)
	server.ask(t, put).null(t)
	for _, n := range []int{512<<10 + 1, 3 << 20} {
		put.body = notes(n)
		server.ask(t, put).refused(t, 400)
	}
	js := request{method: "POST", target: "/api2/json" + s.at("/prune"), header: []string{jsonType}}.as(server.alice)
	js.body = bytes.Repeat([]byte(" "), 600<<10)
	server.ask(t, js).refused(t, 400)
	login := request{method: "POST", target: "/api2/json/access/ticket", header: []string{jsonType}, body: bytes.Repeat([]byte("["), 2<<20)}
	server.ask(t, login).refused(t, 400)

	b := server.backup(t, server.alice, s.later(1))
	wid := b.index(t, "root.pxar.didx")
	c := newChunk([]byte{1})
	b.chunk(t, "dynamic", wid, c)
	many := list{Wid: wid}
	for i := range 4000 { // some 300 KiB
		many.Digests, many.Offsets = append(many.Digests, c.digest), append(many.Offsets, int64(i))
	}
	b.put(t, "dynamic", many).null(t)
	for i := 4000; i < 12000; i++ {
		many.Digests, many.Offsets = append(many.Digests, c.digest), append(many.Offsets, int64(i))
	}
	b.put(t, "dynamic", many).refused(t, 400)
	var ends []uint64
	for i := range 4000 {
		ends = append(ends, uint64(i+1))
	}
	sum := dynamicSum(t, many.Digests[:4000], ends)
	b.end(t, "dynamic", wid, 4000, 4000, sum).null(t)
	// Nothing checks at upload time that the files of a manifest exist (2.9); a
	// server may well do so at the end, and refuse one that was not sent.
	b.commit(t, entry{"root.pxar.didx", "none", 4000, sum})
}

// A log is a raw body: its content type means nothing.
func TestRawBodies(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	log := zstdBlob([]byte("2024-05-06: all is well\n"))
	up := func(body []byte, header string) answer {
		return server.ask(t, request{method: "POST", target: "/api2/json" + s.at("/upload-backup-log?") + pairs(s.params()).Encode(),
			header: []string{header}, body: body}.as(server.alice))
	}
	broken := bytes.Clone(log)
	broken[len(broken)-1] ^= 1
	up(broken, bytesType).refused(t, 400)
	up([]byte("no blob"), bytesType).refused(t, 400)
	up(log, jsonType).null(t)
	up(log, bytesType).refused(t, 400, "already contains a log")
	got := server.rest(server.alice).get(t, s.at("/download"), s.params("file-name", "client.log.blob")...).want(t, 200)
	if !bytes.Equal(got.body, log) {
		t.Errorf("the log came back as %q", got.body)
	}
	l := server.list(t, s)[s.time]
	last := l.Files[len(l.Files)-1]
	if last["filename"] != "client.log.blob" || last["size"] != nil || last["crypt-mode"] != nil {
		t.Errorf("the log is listed as %v", last)
	}
}
