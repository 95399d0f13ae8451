package kill

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
	"holdfast/tests/harness"
)

// serverKills and clientKills are how often a server, and a client of one, are
// killed at scale 1.
const (
	serverKills = 12
	clientKills = 24
)

// TestServerKilled kills the server below a client, and the client of a server
// that goes on.
func TestServerKilled(t *testing.T) {
	for _, tc := range []struct {
		name  string
		kills int
		kill  func(*served) error
	}{{"server", serverKills, (*served).killServer}, {"client", clientKills, (*served).killClient}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			s, err := newServed(seed)
			if err != nil {
				t.Fatal(err)
			}
			n := tc.kills * here.Scale
			i := 0
			for ; lab.More(i, n, s.cut, n/4); i++ {
				if err := tc.kill(s); err != nil {
					t.Fatalf("seed %d, kill %d: %v", seed, i, err)
				}
			}
			t.Logf("%d of %d steps were cut off", s.cut, i)
			if s.cut < n/4 {
				t.Error("too few to prove anything")
			}
			if err := s.server.Stop(); err != nil {
				t.Error(err)
			}
			if err := s.GoOn(); err != nil {
				t.Error(err)
			}
			t.Attr("faultlab.kills", strconv.Itoa(i))
		})
	}
}

// served is a world behind a server.
type served struct {
	*lab.World
	server *lab.Server
	random *rand.Rand
	cut    int
	// longest is the latest moment of a kill. It follows how long a step takes here.
	longest time.Duration
}

func newServed(seed uint64) (*served, error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return nil, err
	}
	w, err := here.NewWorld(filepath.Join(dir, "store"), seed)
	if err != nil {
		return nil, err
	}
	s := &served{World: w, random: rand.New(rand.NewPCG(seed, 15)), longest: 90 * time.Millisecond}
	s.server, err = w.Serve()
	for range 6 {
		if err == nil {
			err = w.Step()
		}
	}
	return s, err
}

// start begins a step and waits for a moment in it.
func (s *served) start() (*lab.Op, *harness.Process, error) {
	op, err := s.Next()
	if err != nil {
		return nil, nil, err
	}
	s.Begin(op)
	p, err := harness.Start(s.Command(s.Args(op)...))
	time.Sleep(time.Duration(s.random.Int64N(int64(s.longest))))
	return op, p, err
}

// end waits for a client and looks at the repository.
func (s *served) end(op *lab.Op, p *harness.Process, mayFail func(harness.Result) bool) error {
	res, err := p.Wait()
	switch {
	case err != nil:
		return err
	case res.Code == lab.ExitOK:
		s.Done(op)
		s.longest = max(s.longest*3/4, time.Millisecond)
	case mayFail(res):
		s.cut++
		s.Failed(op)
		s.longest += s.longest / 4
	default:
		return fmt.Errorf("should have gone well: %s", res)
	}
	// What a client that is no more has asked for may happen yet.
	if err := s.server.Quiet(); err != nil {
		return err
	}
	return s.Judge()
}

func (s *served) killServer() error {
	op, p, err := s.start()
	if err != nil {
		return err
	}
	if _, err := s.server.Kill(); err != nil {
		return err
	}
	if err := s.server.Start(); err != nil {
		return err
	}
	// A client whose answer to finish is lost looks for it where the server was, for
	// ten minutes, unless somebody interrupts it.
	impatient := time.AfterFunc(30*time.Second, func() { _ = p.Signal(syscall.SIGINT) })
	defer impatient.Stop()
	return s.end(op, p, func(r harness.Result) bool { return r.Err != "" })
}

func (s *served) killClient() error {
	op, p, err := s.start()
	if err != nil {
		return err
	}
	_ = p.Signal(syscall.SIGKILL) // it may be dead already
	err = s.end(op, p, func(r harness.Result) bool { return r.Code == lab.ExitSignal })
	if err != nil || s.random.IntN(4) > 0 {
		return err
	}
	// The group is free at once, and nobody has to clean up.
	again, err := s.Backup(lab.Groups()[s.random.IntN(3)])
	if err != nil {
		return err
	}
	return s.MustDo(again)
}
