package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// scripted is a client whose server is a function.
func scripted(t *testing.T, h http.HandlerFunc) *Client {
	c := InProcess(h)
	c.opts.Repository.Datastore = "tank"
	c.retry.base, c.retry.max, c.poll = 1, 1, 1
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDoSendsParameters(t *testing.T) {
	params := url.Values{"name": {"a b+c/d&e"}, "list": {"1", "2"}}
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		c := scripted(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			inBody := method == "POST" || method == "PUT"
			if inBody == (r.URL.RawQuery != "") || inBody == (len(body) == 0) {
				t.Errorf("%s: query %q, body %q", method, r.URL.RawQuery, body)
			}
			got, err := url.ParseQuery(r.URL.RawQuery + string(body))
			if err != nil || !reflect.DeepEqual(got, params) {
				t.Errorf("%s: parameters %v, %v", method, got, err)
			}
			if r.URL.EscapedPath() != "/api2/json/x/UPID:a%5Cb%2F" || r.Header.Get("Content-Type") != formType {
				t.Errorf("%s: path %s, type %s", method, r.URL.EscapedPath(), r.Header.Get("Content-Type"))
			}
			io.WriteString(w, `{"data":{"a":1},"total":7}`)
		})
		var into struct{ A int }
		var whole struct{ Total int }
		err := c.Do(t.Context(), Call{Op: api.Op(method + " /x/{upid}"), At: []string{`UPID:a\b/`}, Params: params, Into: &into, Whole: &whole})
		if err != nil || into.A != 1 || whole.Total != 7 {
			t.Errorf("%s: %+v %+v %v", method, into, whole, err)
		}
	}
}

func TestDoRefuses(t *testing.T) {
	c := scripted(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	for name, call := range map[string]Call{
		"no path":    {Op: "GET"},
		"query":      {Op: "GET /x?y=1"},
		"no value":   {Op: "GET /x/{y}"},
		"long query": {Op: "GET /x", Params: url.Values{"y": {strings.Repeat("z", wire.URIMax)}}},
	} {
		if err := c.Do(t.Context(), call); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	for body, want := range map[string]error{
		``:                       nil,
		`{"data":null}`:          nil,
		`{}`:                     nil,
		`{"data":[{"ns":"a"}]}`:  nil,
		`{"data":[{"ns":"a"}]`:   errAnswer,
		`{"data":"text"}`:        errAnswer,
		`<html>`:                 errAnswer,
		`{"data":[{"ns":17}]}`:   errAnswer,
		"\x00":                   errAnswer,
		`{"data":[]}{"data":[]}`: errAnswer,
	} {
		c := scripted(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
		if _, err := c.Namespaces(t.Context(), ""); !errors.Is(err, want) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestAnswersAreCapped(t *testing.T) {
	for _, announced := range []int64{-1, 6} {
		if _, err := readMax(strings.NewReader("123456"), announced, 5); !errors.Is(err, errAnswer) {
			t.Errorf("length %d: %v", announced, err)
		}
		if b, err := readMax(strings.NewReader("123456"), announced, 6); err != nil || string(b) != "123456" {
			t.Errorf("length %d: %q %v", announced, b, err)
		}
	}
	c := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		part := make([]byte, 1<<20)
		for range answerMax>>20 + 1 {
			w.Write(part)
		}
	})
	if _, err := c.Namespaces(t.Context(), ""); !errors.Is(err, errAnswer) {
		t.Errorf("an endless answer: %v", err)
	}
}

func TestRetries(t *testing.T) {
	tries := defaultPolicy().tries
	for _, tc := range []struct {
		method string
		code   int
		fails  int // how often
		asked  int
		ok     bool
	}{
		{"GET", 503, 2, 3, true},
		{"GET", 502, 2, 3, true},
		{"PUT", 504, 1, 2, true},
		{"GET", 507, 1, 1, false},
		{"GET", 503, 100, tries, false},
		{"GET", 400, 1, 1, false},
		{"GET", 404, 1, 1, false},
		{"POST", 503, 1, 1, false},
		{"DELETE", 503, 1, 1, false},
	} {
		asked := 0
		c := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
			if asked++; asked <= tc.fails {
				refuse(w, tc.code, "not now")
			}
		})
		err := c.Do(t.Context(), Call{Op: api.Op(tc.method + " /x")})
		if asked != tc.asked || (err == nil) != tc.ok {
			t.Errorf("%s %d: asked %d times, want %d; %v", tc.method, tc.code, asked, tc.asked, err)
		}
	}
}

func TestBrokenConnectionIsTriedAgain(t *testing.T) {
	for method, asked := range map[string]int{"GET": 2, "POST": 1} {
		f := newFake(t)
		var n atomic.Int32
		f.before = func(w http.ResponseWriter, _ *http.Request) bool {
			if n.Add(1) > 1 {
				answer(w, nil)
				return true
			}
			raw, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				raw.Close()
			}
			return true
		}
		err := dial(t, f.options()).Do(t.Context(), Call{Op: api.Op(method + " /x")})
		if int(n.Load()) != asked || (err == nil) != (asked == 2) {
			t.Errorf("%s: asked %d times, %v", method, n.Load(), err)
		}
	}
}

func TestStatusErrors(t *testing.T) {
	all := []error{context.Canceled}
	for _, row := range api.Failures() {
		all = append(all, row.Is)
	}
	for _, tc := range []struct {
		code int
		text string
		want []error
	}{
		{401, "authentication failed", []error{wire.ErrUnauthenticated}},
		{401, "a@pbs does not have permission to change owner of backup group 'vm/1' from b@pbs to a@pbs", []error{wire.ErrPermission}},
		{403, "permission check failed", []error{wire.ErrPermission}},
		{404, "Path '/x' not found.", []error{chunkstore.ErrNotExist}},
		{507, "", []error{chunkstore.ErrNoSpace}},
		{400, "backup timestamp is older than last backup.", []error{wire.ErrExists}},
		{400, "backup directory already exists.", []error{wire.ErrExists}},
		{400, "unable to acquire lock on vm/1 - another backup is already running", []error{wire.ErrBusy}},
		{400, "cannot remove protected snapshot", []error{wire.ErrProtected}},
		{400, "backup owner check failed (a@pbs != b@pbs)", []error{wire.ErrOwner, wire.ErrPermission}},
		{400, "no such datastore 'tank'", []error{wire.ErrNoDatastore, chunkstore.ErrNotExist}},
		{404, "datastore 'tank' does not exist", []error{wire.ErrNoDatastore, chunkstore.ErrNotExist}},
		{400, "datastore 'tank' is offline", nil},
		{400, "parameter verification failed - 'x': schema does not allow additional properties.", []error{wire.ErrParameter, wire.ErrUnknownParameter}},
		{429, "", []error{wire.ErrShare}},
		{502, "", []error{wire.ErrFull}},
		{408, "", []error{wire.ErrSlow}},
		{400, "snapshot vm/1/x does not exist.", []error{chunkstore.ErrNotExist}},
		{400, "ENOENT: No such file or directory", []error{chunkstore.ErrNotExist}},
		{400, "snapshot vm/1/x: protected", []error{wire.ErrProtected}},
		{400, "chunk 00: damaged", []error{chunkstore.ErrCorrupt}},
		{400, "store tank: quota exceeded", []error{wire.ErrQuota}},
		{400, "snapshot vm/protected/x: something", nil},
		{400, "", nil},
		{500, "whatever", nil},
	} {
		err := fmt.Errorf("wrapped: %w", &StatusError{Code: tc.code, Text: tc.text})
		for _, s := range all {
			if errors.Is(err, s) != slices.Contains(tc.want, s) {
				t.Errorf("%d %q: is %q %v", tc.code, tc.text, s, errors.Is(err, s))
			}
		}
	}
	if got := (&StatusError{Code: 503}).Error(); got != "the server answered 503 Service Unavailable" {
		t.Error(got)
	}
}

// A server that names what has failed is taken at its word: nothing is listed to find out
// whether it means that the snapshot is not there, and its words mean nothing else.
func TestNamedFailuresAreNotGuessedAt(t *testing.T) {
	snap := wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: 1000}
	for _, tc := range []struct {
		names  string
		absent bool
		asked  int
	}{{"", true, 2}, {"other", false, 1}, {"of-a-newer-server", false, 1}, {"damaged,not-found", true, 1}} {
		t.Run(tc.names, func(t *testing.T) {
			asked := 0
			c := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				if asked++; r.Method == http.MethodGet {
					io.WriteString(w, `{"data":[]}`)
					return
				}
				if tc.names != "" {
					w.Header().Set(wire.FailureHeader, tc.names)
				}
				refuse(w, 400, "something is wrong")
			})
			err := c.Forget(t.Context(), snap)
			if err == nil || errors.Is(err, chunkstore.ErrNotExist) != tc.absent || asked != tc.asked {
				t.Errorf("%v, after %d requests", err, asked)
			}
		})
	}
}

func TestErrorTextIsPrintable(t *testing.T) {
	c := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 400, "red \x1b[31m\xff\ttext\n%s", strings.Repeat("x", errorTextMax))
	})
	err := c.Do(t.Context(), Call{Op: "GET /x"})
	var status *StatusError
	if !errors.As(err, &status) || !strings.HasPrefix(status.Text, "red ?[31m? text\nxxx") || len(status.Text) > errorTextMax {
		t.Errorf("%q", err)
	}
}

func TestLocal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Cookie"])+len(r.Header["Authorization"]) > 0 {
			t.Errorf("header %v", r.Header)
		}
		answer(w, r.URL.Path)
	})}
	go s.Serve(l)
	defer s.Close()
	c := Local(path, 0)
	defer c.Close()
	var got string
	if err := c.Do(t.Context(), Call{Op: "POST /access/users", Into: &got}); err != nil || got != "/api2/json/access/users" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := c.Groups(t.Context(), ""); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("groups of no datastore: %v", err)
	}
	if _, err := c.Begin(t.Context(), snap(1)); err == nil {
		t.Error("a session in no datastore")
	}
}

func TestInProcess(t *testing.T) {
	c := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("a") != "1" || r.RequestURI != "/api2/json/x?a=1" {
			t.Errorf("request %+v", r)
		}
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, "permission check failed")
	})
	err := c.Do(t.Context(), Call{Op: "GET /x", Params: url.Values{"a": {"1"}}})
	if !errors.Is(err, wire.ErrPermission) {
		t.Errorf("%v", err)
	}
	if err := c.Login(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Logout(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Begin(t.Context(), snap(1)); err == nil {
		t.Error("a session without a connection")
	}
}

func TestListings(t *testing.T) {
	c := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api2/json/admin/datastore/tank/groups":
			io.WriteString(w, `{"data":[
 {"backup-type":"vm","backup-id":"100","last-backup":1715000000,"backup-count":4,"files":["drive-scsi0.img.fidx","index.json.blob","qemu-server.conf.blob"],"owner":"root@pam!pve","comment":"web01\n"},
 {"backup-type":"vm","backup-id":"9","last-backup":5,"backup-count":1,"files":["disk.img.fidx"]},
 {"backup-type":"qm","backup-id":"9","last-backup":5,"backup-count":1,"files":["index.json.blob"]},
 {"backup-type":"ct","backup-id":"7","last-backup":0,"backup-count":0,"files":[]},
 {"backup-type":"ct","backup-id":"8","last-backup":3,"backup-count":1,"files":["index.json.blob","../x"],"owner":null}]}`)
		case "/api2/json/admin/datastore/tank/snapshots":
			io.WriteString(w, `{"data":[
 {"backup-type":"vm","backup-id":"100","backup-time":1715000000,"owner":"root@pam!pve","protected":true,"size":34359738880,"comment":"web01","fingerprint":"aa:bb",
  "verification":{"state":"failed","upid":"UPID:x"},
  "files":[{"filename":"drive-scsi0.img.fidx","crypt-mode":"encrypt","size":34359738368},{"filename":"qemu-server.conf.blob","crypt-mode":"encrypt","size":512},
   {"filename":"index.json.blob","crypt-mode":"sign-only","size":480},{"filename":"client.log.blob"}]},
 {"backup-type":"vm","backup-id":"100","backup-time":1714000000,"files":[{"filename":"index.json.blob"},{"filename":"drive-scsi0.img.fidx"}]},
 {"backup-type":"vm","backup-id":"100","backup-time":1716000000,"files":[{"filename":"drive-scsi0.img.fidx"}]},
 {"backup-type":"vm","backup-id":"100","backup-time":0,"size":1,"files":[]},
 {"backup-type":"vm","backup-id":"101","backup-time":7,"size":1,"files":[]}]}`)
		}
	})
	groups, err := c.Groups(t.Context(), "")
	want := []wire.GroupInfo{
		{Group: wire.Group{Type: "ct", ID: "8"}, Count: 1, LastTime: 3},
		{
			Group: wire.Group{Type: "vm", ID: "100"}, Count: 4, LastTime: 1715000000, Owner: "root@pam!pve", Comment: "web01",
			LastFiles: []string{"drive-scsi0.img.fidx", "qemu-server.conf.blob"},
		},
	}
	if err != nil || !reflect.DeepEqual(groups, want) {
		t.Errorf("groups %+v, %v", groups, err)
	}
	list, err := c.Snapshots(t.Context(), snap(1).Group)
	wantList := []wire.SnapshotInfo{
		{
			Snapshot: snap(1714000000), Damage: "the server cannot read the manifest", Extra: []string{"drive-scsi0.img.fidx"},
		},
		{
			Snapshot: snap(1715000000), Size: 34359738880, Protected: true, Notes: "web01", Fingerprint: "aa:bb", Owner: "root@pam!pve",
			Verify: &wire.VerifyState{State: "failed", UPID: "UPID:x"}, Signed: true, ManifestSize: 480, Extra: []string{"client.log.blob"},
			Files: []wire.FileInfo{{Name: "drive-scsi0.img.fidx", CryptMode: "encrypt", Size: 34359738368}, {Name: "qemu-server.conf.blob", CryptMode: "encrypt", Size: 512}},
		},
	}
	if err != nil || !reflect.DeepEqual(list, wantList) {
		t.Errorf("snapshots %+v, %v", list, err)
	}
}

func FuzzListings(f *testing.F) {
	f.Add([]byte(`{"data":[{"backup-type":"vm","backup-id":"100","backup-time":1,"size":1,"files":[{"filename":"x.blob","size":1}]}]}`))
	f.Add([]byte(`{"data":[{"backup-type":"vm","backup-id":"1","last-backup":1,"backup-count":1,"files":["index.json.blob"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &reply{body: b}
		var snapshots []snapshotEntry
		if r.decode(&snapshots, nil) == nil {
			for _, e := range snapshots {
				info, err := e.info(wire.Group{Type: "vm", ID: "100"})
				if err == nil && info.Snapshot.Validate() != nil {
					t.Fatalf("%+v", info)
				}
			}
		}
		var groups []groupEntry
		if r.decode(&groups, nil) == nil {
			for _, e := range groups {
				if info, err := e.info(""); err == nil && info.Group.Validate() != nil {
					t.Fatalf("%+v", info)
				}
			}
		}
	})
}

// taskServer plays a task of n lines that grows while it is watched.
type taskServer struct {
	t     *testing.T
	lines int
	shown int
	exit  string
	skip  bool
}

const testUPID = `UPID:pbs1:000004D2:0001A2B3:00000010:6638B2A0:verify:tank\x3a-vm:root@pam:`

func (s *taskServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api2/json/nodes/localhost/tasks/" + testUPID + "/log":
		var start, limit int
		fmt.Sscan(r.FormValue("start"), &start)
		fmt.Sscan(r.FormValue("limit"), &limit)
		if s.shown < s.lines {
			s.shown += 700
		}
		s.shown = min(s.shown, s.lines)
		data := []map[string]any{}
		for n := start; n <= s.shown && len(data) < limit; n++ {
			data = append(data, map[string]any{"n": n, "t": fmt.Sprintf("2024-05-06T12:00:00+02:00: line %d", n)})
		}
		if s.skip {
			data = data[1:]
		}
		json.NewEncoder(w).Encode(map[string]any{"data": data, "total": s.shown, "success": 1, "active": s.shown < s.lines})
	case "/api2/json/nodes/localhost/tasks/" + testUPID + "/status":
		answer(w, map[string]any{"status": "stopped", "exitstatus": s.exit})
	default:
		s.t.Errorf("request for %s", r.URL.Path)
	}
}

func TestFollowTask(t *testing.T) {
	for exit, ok := range map[string]bool{"OK": true, "WARNINGS: 3": true, "verification failed": false, "": false} {
		s := &taskServer{t: t, lines: 1700, exit: exit}
		n := 0
		err := scripted(t, s.ServeHTTP).FollowTask(t.Context(), testUPID, func(line string) {
			if n++; line != fmt.Sprintf("line %d", n) {
				t.Errorf("line %d is %q", n, line)
			}
		})
		var failed *TaskError
		if n != s.lines || (err == nil) != ok || !ok && !errors.As(err, &failed) {
			t.Errorf("%q: %d lines, %v", exit, n, err)
		}
	}
	s := &taskServer{t: t, lines: 10, skip: true}
	if err := scripted(t, s.ServeHTTP).FollowTask(t.Context(), testUPID, func(string) {}); !errors.Is(err, errAnswer) {
		t.Errorf("a gap: %v", err)
	}
	if err := scripted(t, s.ServeHTTP).FollowTask(t.Context(), "../x", func(string) {}); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("no UPID: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s = &taskServer{t: t, lines: 1 << 30}
	if err := scripted(t, s.ServeHTTP).FollowTask(ctx, testUPID, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
