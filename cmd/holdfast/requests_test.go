package main

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// A command must not ask a server about each of its groups in turn.
func TestListingCommandsAskOnce(t *testing.T) {
	var list []string
	for g := range 300 {
		list = append(list, fmt.Sprintf(`{"backup-type":"vm","backup-id":"%d","backup-time":1000,"size":7,"files":[{"filename":"index.json.blob","size":7}]}`, g))
	}
	answers := map[string]string{
		"/api2/json/admin/datastore/tank/snapshots": "[" + strings.Join(list, ",") + "]",
		"/api2/json/admin/datastore/tank/groups":    "[]",
		"/api2/json/admin/datastore/tank/namespace": `[{"ns":""}]`,
		"/api2/json/admin/datastore/tank/status":    `{"total":3,"used":1,"avail":2}`,
	}
	var mu sync.Mutex
	var asked []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		a, ok := answers[r.URL.Path]
		if !ok {
			http.Error(w, "no such path", http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, `{"data":%s}`, a)
	}))
	defer server.Close()
	sum := sha256.Sum256(server.Certificate().Raw)
	pin := strings.ReplaceAll(strings.TrimSpace(fmt.Sprintf("% x", sum[:])), " ", ":")
	port := server.Listener.Addr().(*net.TCPAddr).Port
	b := newBench(t, "HOLDFAST_PASSWORD=secret", "HOLDFAST_FINGERPRINT="+pin, fmt.Sprintf("HOLDFAST_REPOSITORY=root@pam!t@127.0.0.1:%d:tank", port))
	for _, tc := range []struct {
		args []string
		most int
		out  string
	}{
		{[]string{"snapshot", "list"}, 1, "vm/299/1970-01-01T00:16:40Z"}, {[]string{"status"}, 3, "300 in 300 groups"}, {[]string{"list"}, 1, ""},
	} {
		mu.Lock()
		asked = nil
		mu.Unlock()
		b.do(t, 0, tc.args...)
		b.wantOut(t, tc.out)
		mu.Lock()
		if len(asked) > tc.most {
			t.Errorf("%v asks %d times: %.200q", tc.args, len(asked), asked)
		}
		mu.Unlock()
	}
	asked = nil
	b.run([]string{"verify"}) // there is nothing to read
	listings := 0
	for _, path := range asked {
		if path != "/api2/json/reader" {
			listings++
		}
	}
	if listings > 2 {
		t.Errorf("verify asks %d times for lists", listings)
	}
}
