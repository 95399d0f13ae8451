package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"holdfast/client"
	"holdfast/datastore/wire/api"
)

// A call names a method of the REST interface; what it answers is decoded into the
// caller's variable, and every answer that is no success is a StatusError.
func ExampleClient_Do() {
	server := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api2/json/admin/datastore/tank/groups" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, `{"data": [{"backup-type": "vm", "backup-id": "100", "backup-count": 7}]}`)
	})
	c := client.InProcess(server) // client.Dial is for one on another machine
	defer c.Close()

	var groups []struct {
		Type  string `json:"backup-type"`
		ID    string `json:"backup-id"`
		Count int    `json:"backup-count"`
	}
	err := c.Do(context.Background(), client.Call{
		Op: api.ListGroups, At: []string{"tank"}, Into: &groups,
	})
	fmt.Println(groups, err)

	err = c.Do(context.Background(), client.Call{Op: api.ListNodes})
	var status *client.StatusError
	if errors.As(err, &status) {
		fmt.Println("refused with", status.Code)
	}
	// Output:
	// [{vm 100 7}] <nil>
	// refused with 404
}
