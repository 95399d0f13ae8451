package world

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// places is a set of places where a snapshot may be.
type places int

const (
	absent places = 1 << iota
	inTree
	inTrash
)

func (p places) String() string {
	var s []string
	for i, name := range []string{"nowhere", "in the tree", "in the trash"} {
		if p&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	return fmt.Sprint(s)
}

// promise is what is known of one snapshot.
type promise struct {
	snap      wire.Snapshot
	archives  []archive
	copies    wire.AuthID     // whose copies of encrypted chunks it reads
	read      map[holding]int // in which way each of them was sealed when it was read first
	manifest  chunkstore.Blob
	may       places
	protected bool
	busy      bool // a task removes it, brings it back or marks it
	finishing bool // its finish has not been answered
}

// archive is an index and the numbers of its chunks.
type archive struct {
	name   string
	class  chunkstore.Class
	chunks []int
}

// model is what the store has promised.
type model struct {
	all       map[wire.Snapshot]*promise
	last      int64 // time of the newest snapshot
	trashDays int
	clock     int64 // what the wall clock says, in Unix seconds
	boot      int   // how often the machine was started anew
	up        int64 // how long it has been up, in seconds
	emptying  int   // tasks that empty the trash
	// begun and ended count the removals of a whole group.
	begun, ended map[wire.Group]int
	// given counts the beginnings and ends of changes of owner.
	given map[wire.Group]int
	// sent is in which ways contents have been sent, by whose copies they are.
	sent map[holding]ways
	// puts counts how often.
	puts map[holding]int
}

// newModel is the model of an empty store.
func newModel() *model {
	return &model{
		all: make(map[wire.Snapshot]*promise), begun: make(map[wire.Group]int), ended: make(map[wire.Group]int),
		given: make(map[wire.Group]int), sent: make(map[holding]ways), puts: make(map[holding]int), clock: 1 << 30,
	}
}

func (m *model) clone() *model {
	c := *m
	c.begun, c.ended, c.given = make(map[wire.Group]int), make(map[wire.Group]int), make(map[wire.Group]int)
	c.sent, c.puts = maps.Clone(m.sent), maps.Clone(m.puts)
	c.all = make(map[wire.Snapshot]*promise, len(m.all))
	for k, p := range m.all {
		q := *p
		q.read = maps.Clone(p.read)
		c.all[k] = &q
	}
	return &c
}

// list returns all promises, the oldest first.
func (m *model) list() []*promise {
	return slices.SortedFunc(maps.Values(m.all), func(a, b *promise) int {
		return cmp.Or(a.snap.Group.Compare(b.snap.Group), cmp.Compare(a.snap.Time, b.snap.Time))
	})
}

// some picks a promise that fits, or nil.
func (m *model) some(r *rand.Rand, fits func(*promise) bool) *promise {
	var list []*promise
	for _, p := range m.list() {
		if fits(p) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[r.IntN(len(list))]
}

// removed is where a snapshot is after it was removed.
func (m *model) removed() places {
	switch {
	case m.trashDays == 0:
		return absent
	case m.emptying > 0 || m.trashDays < safeDays:
		return absent | inTrash
	}
	return inTrash
}

// safeDays is a trash time that no schedule can use up: each step of the wall
// clock counts for 25 hours at most, and there are fewer than six.
const safeDays = 7

// empties notes that the trash may lose what is in it.
func (m *model) empties() {
	for _, p := range m.all {
		if p.may&inTrash != 0 && !p.protected {
			p.may |= absent
		}
	}
}
