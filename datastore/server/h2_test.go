package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
)

// h2Preface is what a client says first: its preface and empty settings.
const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

func TestSettingsOfASession(t *testing.T) {
	l := newSessionLab(t)
	u := backupOf("alice", "vm/100", 1000)
	u.early = h2Preface // sent with the request, so that the parser of HTTP/1.1 reads it ahead
	resp, conn := l.ask(u)
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	l.must(conn.SetDeadline(time.Now().Add(testWait)))
	settings, window := map[uint16]uint32{}, uint32(0)
	for window == 0 {
		head := make([]byte, 9)
		_, err := io.ReadFull(conn, head)
		l.must(err)
		body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		_, err = io.ReadFull(conn, body)
		l.must(err)
		switch head[3] {
		case 4: // SETTINGS
			for ; len(body) >= 6; body = body[6:] {
				settings[binary.BigEndian.Uint16(body)] = binary.BigEndian.Uint32(body[2:])
			}
		case 8: // WINDOW_UPDATE
			window = binary.BigEndian.Uint32(body)
		}
	}
	const streams, streamWindow, frame = 3, 4, 5
	if settings[streams] != 128 || settings[frame] != 64<<10 || settings[streamWindow] != 32<<20 || window+65535 < 8<<20 {
		t.Errorf("settings %v, window of the connection %d", settings, window+65535)
	}
}

func TestSessionWithoutPreface(t *testing.T) {
	l := newSessionLab(t)
	resp, conn := l.ask(backupOf("alice", "vm/100", 1000))
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
	if status := l.ended("backup"); status != "backup ended but finished flag is not set" {
		t.Errorf("task: %s", status)
	}
}

// stalledUpload begins an upload of n bytes that stops after the first few. cut
// breaks it off.
func (k *talk) stalledUpload(n int) (answer chan string, cut func()) {
	q := chunkUpload("dynamic", 1, k.lab.incompressible(1, n))
	r, w := io.Pipe()
	q.body = r
	answer = make(chan string, 1)
	go func() {
		_, text, err := k.send(context.Background(), q)
		if err != nil {
			text = []byte(err.Error())
		}
		answer <- string(text)
	}()
	w.Write(make([]byte, 100))
	return answer, func() { w.CloseWithError(io.ErrUnexpectedEOF) }
}

func TestStalledUploadLosesItsMemory(t *testing.T) {
	l := newLimitedLab(t, budget.Limits{LoginDelay: -1, DenyDelay: -1, StallTimeout: 50 * time.Millisecond})
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.data(post("/dynamic_index", "archive-name", "a.didx"))
	answer, cut := k.stalledUpload(9 * mib)
	defer cut()
	if text := <-answer; !strings.Contains(text, "stalled") && !strings.Contains(text, "stream error") {
		t.Errorf("the stalled upload got %q", text)
	}
	eventuallyFree(t, "incoming", l.server.accounts.Incoming)
}

// An upload that does not get on keeps nobody waiting, neither those of its own
// session nor those of others.
func TestStalledUploadKeepsNobodyWaiting(t *testing.T) {
	l := newSessionLab(t)
	l.server.accounts.Incoming = tight(chunkstore.BlobSizeMax)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	other := l.begin(backupOf("bob", "vm/200", 1000))
	for _, s := range []*talk{k, other} {
		s.data(post("/dynamic_index", "archive-name", "a.didx"))
	}
	answer, cut := k.stalledUpload(9 * mib)
	l.untilLent()
	for i, s := range []*talk{k, other} {
		b := l.bitOf(byte(i), 2*mib)
		s.data(chunkUpload("dynamic", 1, b))
		s.data(appendOf("dynamic", 1, entry{0, b}))
	}
	select {
	case text := <-answer:
		t.Errorf("the upload did not stall, the test proves nothing: %q", text)
	default:
	}
	cut()
	<-answer
}

// untilLent waits until an upload has all the memory there is.
func (l *sessionLab) untilLent() {
	for l.server.accounts.Incoming.Used() == 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestMemoryIsReturnedOnDisconnect(t *testing.T) {
	l := newSessionLab(t)
	all := l.server.accounts
	all.Incoming = tight(chunkstore.BlobSizeMax)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.data(post("/dynamic_index", "archive-name", "a.didx"))
	answer, cut := k.stalledUpload(9 * mib)
	defer cut()
	l.untilLent()
	waiting, cutToo := k.stalledUpload(9 * mib)
	defer cutToo()
	for all.Spooled.Used() == 0 { // until the second lies in a file
		time.Sleep(time.Millisecond)
	}
	k.conn.Close()
	<-answer
	<-waiting
	l.ended("backup")
	for name, r := range map[string]*ledger.Resource{"bodies": all.Incoming, "whole": all.Arrived, "spool": all.Spooled} {
		eventuallyFree(t, name, r)
	}
	if left := l.left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left, err := filepath.Glob(filepath.Join(l.dir, "body-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	l.simple("alice", "vm/100", 1000) // the group is free and the name too
}

// A body in a file is checked like one in memory.
func TestSpooledBodies(t *testing.T) {
	l := newSessionLab(t)
	free := takeAll(t, l.server.accounts.Incoming)
	defer func() { free() }()
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.data(post("/dynamic_index", "archive-name", "a.didx"))
	b := l.bitOf(1, 3*mib)
	for words, body := range map[string]string{"unexpected size": string(b.raw[:len(b.raw)-1]), "larger than announced": string(b.raw) + "x"} {
		q := chunkUpload("dynamic", 1, b)
		q.body = io.MultiReader(strings.NewReader(body)) // without a length
		k.refuses(q, 400, words)
	}
	k.data(chunkUpload("dynamic", 1, b))
	k.data(appendOf("dynamic", 1, entry{0, b}))
	conf := l.manifestOf("vm/1", 1)
	k.data(blobUpload("a.conf.blob", conf))
	eventuallyFree(t, "room", l.server.accounts.Spooled)
	defer takeAll(t, l.server.accounts.Spooled)()
	// With neither memory nor room an upload waits, and goes on when there is
	// memory.
	answered := make(chan int, 1)
	go func() {
		code, _, _ := k.send(context.Background(), chunkUpload("dynamic", 1, l.bitOf(2, 1000)))
		answered <- code
	}()
	select {
	case code := <-answered:
		t.Errorf("an upload without memory: %d", code)
	case <-time.After(300 * time.Millisecond):
	}
	free()
	free = func() {}
	if code := <-answered; code != 200 {
		t.Errorf("the upload that waited: %d", code)
	}
}

// takeAll takes all there is of a resource, as several administrators.
func takeAll(t *testing.T, r *ledger.Resource) (free func()) {
	t.Helper()
	var all []*ledger.Hold
	for i := 0; r.Used() < r.Limit().Total; i++ {
		p := ledger.Payer{Account: fmt.Sprint("admin", i), Admin: true}
		h, err := r.Try(p, r.Left(p))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	return func() {
		for _, h := range all {
			h.Free()
		}
	}
}

// tight is so much memory for uploads.
func tight(bytes int64) *ledger.Resource {
	return ledger.New(ledger.Limit{Name: "memory", Total: bytes})
}

// eventuallyFree fails the test unless everything of a resource is given back.
func eventuallyFree(t *testing.T, name string, r *ledger.Resource) {
	t.Helper()
	for end := time.Now().Add(testWait); r.Used() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: %d are still held", name, r.Used())
		}
	}
}

// Readers that do not get on leave every session one blob at a time.
func TestSlowReadersKeepNobodyWaiting(t *testing.T) {
	l := newSessionLab(t)
	list := l.simple("alice", "vm/100", 1000)
	defer takeAll(t, l.server.accounts.Outgoing)() // by others
	k := l.begin(readerOf("alice", "vm/100", 1000))
	k.raw(get("/download", "file-name", "disk.img.didx"))
	done := make(chan error, 10)
	for i := range cap(done) {
		go func() {
			code, text, err := k.send(context.Background(), get("/chunk", "digest", list[i%2].bit.id))
			if err == nil && code != 200 {
				err = &rest.StatusError{Code: code, Text: string(text)}
			}
			done <- err
		}()
	}
	for range cap(done) {
		l.must(<-done)
	}
}

func TestSilentSessionsEndWithTheServer(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	l.simple("alice", "vm/200", 1000)
	r := l.begin(readerOf("alice", "vm/200", 1000))
	r.raw(get("/download", "file-name", wire.ManifestName))
	k.raw(get("/previous_backup_time"))
	l.must(l.server.Close()) // with both open
	if _, _, err := r.send(context.Background(), get("/speedtest")); err == nil {
		t.Error("the session goes on")
	}
}

// The head of a request stays in memory as long as its stream is open: one that is longer
// than any that means something is refused.
func TestHeadsInSessionsAreShort(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	code, _, err := k.send(t.Context(), get("/previous", "archive-name", strings.Repeat("x", 16<<10)))
	if err == nil && code != http.StatusRequestHeaderFieldsTooLarge { // or the connection ends
		t.Errorf("%d, %v", code, err)
	}
	k = l.begin(backupOf("alice", "vm/101", 1000))
	k.data(post("/dynamic_index", "archive-name", strings.Repeat("x", 190)+".didx"))
}
