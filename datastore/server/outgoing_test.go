package server

import (
	"context"
	"testing"
	"time"

	"holdfast/datastore/server/rest"
)

// Without memory and without room for files a reader waits, and gets what it
// asked for once there is memory again.
func TestReaderWaitsWithoutRoom(t *testing.T) {
	l := newSessionLab(t)
	list := l.simple("alice", "vm/100", 1000)
	free := takeAll(t, l.server.accounts.Outgoing) // by others
	defer takeAll(t, l.server.accounts.Kept)()
	k := l.begin(readerOf("alice", "vm/100", 1000))
	done := make(chan error, 1)
	go func() {
		code, text, err := k.send(context.Background(), get("/download", "file-name", "disk.img.didx"))
		if err == nil && code == 200 {
			code, text, err = k.send(context.Background(), get("/chunk", "digest", list[0].bit.id))
		}
		if err == nil && code != 200 {
			err = &rest.StatusError{Code: code, Text: string(text)}
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("a chunk without memory: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	free()
	l.must(<-done)
}
