package pack

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

// sealedChunks makes n encrypted chunks of about 1,000 bytes of an owner. Those of
// two owners have the same bytes.
func sealedChunks(first, n int, owner string) []chunkstore.Chunk {
	cs := make([]chunkstore.Chunk, n)
	for i := range cs {
		cs[i] = storetest.Sealed(uint64(first+i), 900+(first+i)%200, owner)
	}
	return cs
}

// blobBytes sums the stored bytes of all records.
func blobBytes(t testing.TB, s *Store) uint64 {
	t.Helper()
	u, err := s.Usage(bg)
	if err != nil {
		t.Fatal(err)
	}
	return u.StoredBytes
}

// TestSameBytesOfTwoOwnersAreStoredOnce: machines that share a key share storage, and
// whatever happens to the catalogue, to the packs or to one of them, both read on.
func TestSameBytesOfTwoOwnersAreStoredOnce(t *testing.T) {
	alice, bob := sealedChunks(0, 25, "alice"), sealedChunks(0, 25, "bob")
	both := append(append([]chunkstore.Chunk(nil), alice...), bob...)
	begin := func(t *testing.T) (string, *Store) {
		dir := create(t)
		s := openAt(t, dir, smallPacks)
		fill(t, s, alice)
		once := blobBytes(t, s)
		fill(t, s, bob)
		if got := blobBytes(t, s); got != once {
			t.Fatalf("%d bytes are stored for both, %d for one", got, once)
		}
		holdsAll(t, s, both)
		return dir, s
	}
	for name, then := range map[string]func(t *testing.T, dir string, s *Store) *Store{
		"reopened": func(t *testing.T, dir string, s *Store) *Store {
			closeStore(t, s)
			return openAt(t, dir, smallPacks)
		},
		"killed": func(t *testing.T, dir string, s *Store) *Store {
			kill(t, s)
			return openAt(t, dir, smallPacks)
		},
		"catalogue lost": func(t *testing.T, dir string, s *Store) *Store {
			closeStore(t, s)
			remove(t, dir+"/"+catalogue.FileName)
			return openAt(t, dir, smallPacks)
		},
		"catalogue lost in a crash": func(t *testing.T, dir string, s *Store) *Store {
			kill(t, s)
			remove(t, dir+"/"+catalogue.FileName)
			return openAt(t, dir, smallPacks)
		},
		"reindexed": func(t *testing.T, _ string, s *Store) *Store {
			if _, err := s.Reindex(bg, nil); err != nil {
				t.Fatal(err)
			}
			return s
		},
		"swept": func(t *testing.T, _ string, s *Store) *Store {
			sweep(t, s, usedSet(both), SweepOptions{Waste: 0.001})
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, s := begin(t)
			s = then(t, dir, s)
			holdsAll(t, s, both)
			if _, lost := scrubAll(t, s, ScrubOptions{}); len(lost) > 0 {
				t.Errorf("%d chunks are called damaged", len(lost))
			}
			closeStore(t, s)
		})
	}
}

// TestSweepKeepsWhatOneOwnerStillNeeds: a record is in use as long as one of those who
// have sent it needs it, and goes with the last of them.
func TestSweepKeepsWhatOneOwnerStillNeeds(t *testing.T) {
	alice, bob := sealedChunks(0, 25, "alice"), sealedChunks(0, 25, "bob")
	for _, tc := range []struct {
		name string
		stay []chunkstore.Chunk
	}{{"who sent it first", alice}, {"who sent it second", bob}, {"nobody", nil}} {
		t.Run(tc.name, func(t *testing.T) {
			dir := create(t)
			s := openAt(t, dir, smallPacks)
			fill(t, s, alice)
			fill(t, s, bob)
			// Whole packs of others, so that what stays has to be moved.
			fill(t, s, chunks(1000, 25))
			closeStore(t, s)
			s = openAt(t, dir, smallPacks)
			for range 2 {
				sweep(t, s, usedSet(tc.stay), SweepOptions{Waste: 0.001})
				holdsAll(t, s, tc.stay)
			}
			closeStore(t, s)
			remove(t, dir+"/"+catalogue.FileName)
			s = openAt(t, dir, smallPacks)
			holdsAll(t, s, tc.stay)
			if tc.stay == nil && packBytes(t, dir) > 0 {
				t.Errorf("%d bytes are left of nothing", packBytes(t, dir))
			}
			// What comes next finds its way beside it.
			fill(t, s, alice)
			fill(t, s, bob)
			holdsAll(t, s, append(append([]chunkstore.Chunk(nil), alice...), bob...))
			closeStore(t, s)
		})
	}
}

// TestClaimsAreNotSweptOverAndOver: a pack of claims in use is no waste.
func TestClaimsAreNotSweptOverAndOver(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	alice, bob := sealedChunks(0, 200, "alice"), sealedChunks(0, 200, "bob")
	fill(t, s, alice)
	fill(t, s, bob)
	closeStore(t, s)
	s = openAt(t, dir, smallPacks)
	defer closeStore(t, s)
	sweep(t, s, usedSet(alice, bob), SweepOptions{})
	if r := sweep(t, s, usedSet(alice, bob), SweepOptions{}); r.PacksRewritten+r.PacksRemoved > 0 || r.Chunks != 200 || r.UsedChunks != 200 {
		t.Errorf("a second sweep of a store in use: %+v", r)
	}
}

// TestDamageOfASharedRecordIsEverybodys: both are told, each heals with his own next
// upload, and one upload serves the other again.
func TestDamageOfASharedRecordIsEverybodys(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	alice, bob := sealedChunks(0, 25, "alice"), sealedChunks(0, 25, "bob")
	fill(t, s, alice)
	fill(t, s, bob)
	hurtRecord(t, s, alice[3], packfile.RecordSize+9)
	if _, lost := scrubAll(t, s, ScrubOptions{}); len(lost) != 1 {
		t.Errorf("%d chunks are lost", len(lost))
	}
	for _, c := range []chunkstore.Chunk{alice[3], bob[3]} {
		if _, err := s.Stat(bg, c.Key()); !errors.Is(err, chunkstore.ErrNotExist) {
			t.Errorf("a damaged chunk is vouched for: %v", err)
		}
	}
	before := blobBytes(t, s)
	fill(t, s, bob[3:4])
	storetest.Holds(t, s, bob[3])
	if _, err := s.Stat(bg, alice[3].Key()); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("what another has sent is vouched for: %v", err)
	}
	fill(t, s, alice[3:4])
	holdsAll(t, s, alice)
	if more := blobBytes(t, s) - before; more != uint64(len(bob[3].Blob)) {
		t.Errorf("%d bytes were stored to heal a chunk of %d", more, len(bob[3].Blob))
	}
	closeStore(t, s)
	remove(t, dir+"/"+catalogue.FileName)
	s = openAt(t, dir, smallPacks)
	holdsAll(t, s, alice)
	holdsAll(t, s, bob)
	closeStore(t, s)
}

// TestSalvageTakesTheSameBytesOfWhomever: what one owner has lost is rebuilt from the same
// bytes of another, and never from others.
func TestSalvageTakesTheSameBytesOfWhomever(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	defer closeStore(t, s)
	alice, bob := sealedChunks(0, 25, "alice"), sealedChunks(0, 25, "bob")
	fill(t, s, alice)
	other := bob[4]
	other.Blob = storetest.Sealed(77, len(other.Blob), "bob").Blob
	fill(t, s, []chunkstore.Chunk{other})
	hurtRecord(t, s, alice[3], packfile.RecordSize+9)
	hurtRecord(t, s, alice[4], packfile.RecordSize+9)
	scrubAll(t, s, ScrubOptions{})
	fill(t, s, bob[3:4])
	r, err := s.Salvage(bg)
	if err != nil || r.Lost != 2 || r.Rescued != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	storetest.Holds(t, s, alice[3])
	if _, err := s.Stat(bg, alice[4].Key()); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("healed by what somebody else has sent under its name: %v", err)
	}
}

// TestDamagedClaim: the chunk can be read, but its owner is to send it again, since a
// catalogue that is built anew would not know that it is his.
func TestDamagedClaim(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	alice, bob := sealedChunks(0, 25, "alice"), sealedChunks(0, 25, "bob")
	fill(t, s, alice)
	fill(t, s, bob)
	_, l := where(t, s, bob[3])
	if !l.Claimed() {
		t.Fatal("there is no claim")
	}
	p := s.packNow(l.ClaimPack)
	flipAt(t, rawFile(t, packPath(dir, packfile.File{ID: p.ID, State: p.State})), l.ClaimOff+20, 2)
	r, lost := scrubAll(t, s, ScrubOptions{})
	if r.Damaged == 0 && r.PacksDamaged == 0 || len(lost) > 0 {
		t.Errorf("%+v, %d lost", r, len(lost))
	}
	fill(t, s, bob[3:4])
	holdsAll(t, s, alice)
	holdsAll(t, s, bob)
	closeStore(t, s)
	remove(t, dir+"/"+catalogue.FileName)
	s = openAt(t, dir, smallPacks)
	holdsAll(t, s, alice)
	holdsAll(t, s, bob)
	closeStore(t, s)
}

// TestManyOwnersAtOnce has several owners send the same bytes together while a sweep
// goes on.
func TestManyOwnersAtOnce(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	const owners = 6
	done := make(chan error, owners)
	var all []chunkstore.Chunk
	for i := range owners {
		cs := sealedChunks(0, 60, fmt.Sprint("owner", i))
		all = append(all, cs...)
		go func() {
			se, err := s.Begin(bg)
			if err != nil {
				done <- err
				return
			}
			for _, c := range cs {
				_, perr := se.Put(bg, c)
				_, kerr := se.(chunkstore.Keeper).Keep(bg, c.Key())
				err = errors.Join(err, perr, kerr)
			}
			done <- errors.Join(err, se.Sync(bg), se.Close())
		}()
	}
	for range 5 {
		sweep(t, s, usedSet(all), SweepOptions{Waste: 0.001})
	}
	for range owners {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	s.sealDone.Wait()
	sweep(t, s, usedSet(all), SweepOptions{Waste: 0.001})
	holdsAll(t, s, all)
	u, err := s.Usage(bg)
	if err != nil {
		t.Fatal(err)
	}
	if live := u.StoredBytes; live > 3*60*1100 {
		t.Errorf("%d bytes for %d chunks of 1,000", live, 60)
	}
	closeStore(t, s)
	if err := os.Remove(dir + "/" + catalogue.FileName); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, smallPacks)
	holdsAll(t, s, all)
	closeStore(t, s)
}
