package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/datastore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
	"holdfast/datastore/wire/wiretest"
)

// many makes groups with one snapshot each, all of them the same files. Those
// that are there stay.
func (l *lab) many(st *datastore.Store, groups int) {
	l.t.Helper()
	first := wire.Snapshot{Group: wire.Group{Type: "host", ID: "g0"}, Time: 1000}
	if n, err := st.Count(first.Group); err != nil || n == 0 {
		wiretest.Store(l.t, st, wiretest.Content{Snapshot: first, Chunks: []string{"hello"}})
	}
	from := filepath.Join(st.Path(), "host", "g0")
	for i := 1; i < groups; i++ {
		if err := os.CopyFS(filepath.Join(st.Path(), "host", fmt.Sprint("g", i)), os.DirFS(from)); err != nil && !errors.Is(err, fs.ErrExist) {
			l.t.Fatal(err)
		}
	}
}

// allocations is how much work a request is, whatever the machine.
func (l *lab) allocations(path string) float64 {
	h := l.server.Handler()
	return testing.AllocsPerRun(3, func() {
		r := httptest.NewRequest("GET", "/api2/json"+path, nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(WithIdentity(r.Context(), wire.RootUser)))
		if w.Code != 200 {
			l.t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	})
}

// What is asked about one group must not depend on how many others there are:
// a client that asks about each in turn would have to wait for their square.
func TestAskingAboutOneGroupReadsNoOther(t *testing.T) {
	l := newLab(t, Options{})
	st := l.tank()
	const one, base = "?backup-type=host&backup-id=g0", "/admin/datastore/tank"
	paths := []string{base + "/snapshots" + one, base + "/group-notes" + one, base + "/files" + one + "&backup-time=1000",
		base + "/notes" + one + "&backup-time=1000", base + "/protected" + one + "&backup-time=1000"}
	l.many(st, 2)
	few := map[string]float64{}
	for _, p := range paths {
		few[p] = l.allocations(p)
	}
	l.many(st, 200)
	for _, p := range paths {
		if n := l.allocations(p); n > 2*few[p] {
			t.Errorf("%s: %.0f allocations beside 200 groups, %.0f beside 2", p, n, few[p])
		}
	}
}

// A listing of everything costs as much as there is to list.
func TestListingEverythingIsLinear(t *testing.T) {
	l := newLab(t, Options{})
	st := l.tank()
	for _, path := range []string{"/admin/datastore/tank/snapshots", "/admin/datastore/tank/groups"} {
		l.many(st, 20)
		few := l.allocations(path)
		l.many(st, 200)
		if n := l.allocations(path); n > 15*few {
			t.Errorf("%s: %.0f allocations for 200 groups, %.0f for 20", path, n, few)
		}
		for i := 20; i < 200; i++ {
			if err := os.RemoveAll(filepath.Join(st.Path(), "host", fmt.Sprint("g", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAListThatFailsHalfwayIsNotTakenForWhole(t *testing.T) {
	l := newLab(t, Options{})
	broken := errors.New("the disk has gone")
	for name, tc := range map[string]struct {
		before int // bytes of elements
		clean  bool
	}{"nothing sent": {100, true}, "much sent": {3 * listAhead, false}} {
		t.Run(name, func(t *testing.T) {
			m := method{Method: api.Method{Op: api.Op("GET /broken" + strings.ReplaceAll(name, " ", "")), May: api.May{Who: api.LoggedIn}}, Do: func(c *call) (any, error) {
				return nil, c.streamList(func(add func(any) error) error {
					for n := 0; n < tc.before; n += 100 {
						if err := add(strings.Repeat("x", 100)); err != nil {
							return err
						}
					}
					return broken
				})
			}}
			l.server.tree.Add(&m)
			r, err := http.NewRequest("GET", l.base+"/api2/json"+m.Path(), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "PBSAPIToken="+admin+":"+l.secrets[admin])
			a, err := l.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			got, err := io.ReadAll(a.Body)
			told := a.StatusCode == 400 && string(got) == broken.Error()
			if told != tc.clean || (err != nil) == tc.clean {
				t.Errorf("%d, %d bytes, %v", a.StatusCode, len(got), err)
			}
		})
	}
}

func TestListsForTheWebPage(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	a := l.request(admin, "GET", "/api2/extjs/admin/datastore/tank/groups", nil, nil)
	var body struct {
		Data            []any
		Success, Status int
	}
	if err := json.Unmarshal([]byte(a.text), &body); err != nil || len(body.Data) != 3 || body.Success != 1 || body.Status != 200 {
		t.Errorf("%v: %s", err, a.text)
	}
}
