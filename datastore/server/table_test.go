package server

import (
	"reflect"
	"slices"
	"testing"

	"holdfast/datastore/wire/api"
)

// Every row of the shared tables has something that is done for it, and nothing is done
// that has no row.
func TestEveryRowIsBound(t *testing.T) {
	for name, tc := range map[string]struct {
		rows  []api.Method
		bound []method
	}{
		"rest":   {api.Methods(), methods()},
		"backup": {api.BackupRows(), (&backup{}).methods()},
		"reader": {api.ReaderRows(), (&reading{}).methods()},
	} {
		t.Run(name, func(t *testing.T) {
			for _, row := range tc.rows {
				if n := len(slices.DeleteFunc(slices.Clone(tc.bound), func(m method) bool { return m.Op != row.Op })); n != 1 {
					t.Errorf("%s: %d functions", row.Op, n)
				}
			}
		})
	}
	total := 0
	for _, h := range []handlers{serverHandlers(), accessHandlers(), storeHandlers(), groupHandlers()} {
		total += len(h)
	}
	if total != len(api.Methods()) {
		t.Errorf("%d functions for %d rows", total, len(api.Methods()))
	}
}

// A row that says nothing about who may ask lets nobody pass, root@pam neither.
func TestARowThatSaysNothingIsForNobody(t *testing.T) {
	l := newLab(t, Options{})
	m := method{Method: api.Method{Op: "GET /unsaid"}, Do: func(*call) (any, error) { return "secret", nil }}
	l.server.tree.Add(&m)
	if a := l.request(admin, "GET", "/api2/json/unsaid", nil, nil); a.code != 403 {
		t.Errorf("%d %s", a.code, a.text)
	}
	if reflect.ValueOf(api.Nobody).Int() != 0 {
		t.Error("nobody is not the zero value")
	}
}

// mayOf is what the row of a method says of who may ask.
func mayOf(op api.Op) api.May {
	rows := api.Methods()
	return rows[slices.IndexFunc(rows, func(m api.Method) bool { return m.Op == op })].May
}
