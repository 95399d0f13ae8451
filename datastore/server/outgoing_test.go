package server

import (
	"context"
	"testing"
	"time"
)

// Without memory and without room for files a reader waits, and gets what it
// asked for once there is memory again.
func TestReaderWaitsWithoutRoom(t *testing.T) {
	l := newSessionLab(t)
	list := l.simple("alice", "vm/100", 1000)
	host := l.server.host
	l.must(host.reads.Acquire(context.Background(), readBudget)) // by others
	l.must(host.kept.room.Acquire(context.Background(), keptBudget))
	k := l.begin(readerOf("alice", "vm/100", 1000))
	done := make(chan error, 1)
	go func() {
		code, text, err := k.send(context.Background(), get("/download", "file-name", "disk.img.didx"))
		if err == nil && code == 200 {
			code, text, err = k.send(context.Background(), get("/chunk", "digest", list[0].bit.id))
		}
		if err == nil && code != 200 {
			err = &statusError{code: code, text: string(text)}
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("a chunk without memory: %v", err)
	case <-time.After(3 * crowdWait):
	}
	host.reads.Release(readBudget)
	l.must(<-done)
}

func TestSharesOfUsers(t *testing.T) {
	s := shares{size: 10}
	if !s.of("a@pbs").TryAcquire(10) || s.of("a@pbs").TryAcquire(1) {
		t.Error("the sessions of a user do not share")
	}
	if !s.of("b@pbs").TryAcquire(10) {
		t.Error("one user takes the share of another")
	}
}
