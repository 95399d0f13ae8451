package pack

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
)

// TestTakingAPackEndsWithItsContext: a full pack that cannot be sealed at the moment comes
// back again and again, and whoever has given up must not go round with it.
func TestTakingAPackEndsWithItsContext(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	defer closeStore(t, s)
	w, err := s.newWriter()
	if err != nil {
		t.Fatal(err)
	}
	full := w.end
	w.end = s.options.PackSize
	s.putWriter(w)
	for range sealsMax {
		s.sealing <- struct{}{}
	}
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if _, err := s.takeWriter(ctx, s.newSession()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for range sealsMax {
		<-s.sealing
	}
	w.end = full
}

// TestCloseTwiceAtOnce: the store is closed once, and nobody is told so before it is.
func TestCloseTwiceAtOnce(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	cs := chunks(0, 30)
	fill(t, s, cs)
	const closers = 8
	done := make(chan error, closers)
	for range closers {
		go func() {
			err := s.Close()
			l, lerr := acquireLock(bg, dir, true, 0)
			if errors.Is(lerr, chunkstore.ErrLocked) {
				err = errors.Join(err, lerr)
			} else if lerr == nil {
				err = errors.Join(err, l.release())
			}
			done <- err
		}()
	}
	for range closers {
		if err := <-done; err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// TestShortageOfDescriptorsLosesNoPack: a pack that cannot be opened now is gone on with
// later, and the store stays one that can be written to.
func TestShortageOfDescriptorsLosesNoPack(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{PackSize: 1 << 20})
	fill(t, s, chunks(0, 5))
	closeStore(t, s)
	s = openAt(t, dir, Options{PackSize: 1 << 20})
	defer closeStore(t, s)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	defer se.Close()
	less := was
	less.Cur = lowestFree(t)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &less); err != nil {
		t.Fatal(err)
	}
	_, err = se.Put(bg, chunks(100, 1)[0])
	if rerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Fatalf("put without descriptors: %v", err)
	}
	fill(t, s, chunks(100, 5))
	holdsAll(t, s, chunks(0, 5))
	holdsAll(t, s, chunks(100, 5))
	if list := packsIn(t, dir); len(list) != 1 {
		t.Errorf("%d packs: the first was given up", len(list))
	}
}

// lowestFree is the number that the next descriptor would have.
func lowestFree(t testing.TB) uint64 {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return uint64(f.Fd())
}
