package schedule

// mutant breaks one rule of the store on purpose.
type mutant struct {
	name string
	rule string // that is broken
	// tasks are those that can show it, if all of them together would do so too
	// seldom.
	tasks string
	// changes ask sim.Mutant(name) before they do harm, so that one program
	// has all of them.
	changes []change
}

// mutantChanges are the changes of all mutants.
func mutantChanges() []change {
	var all []change
	for _, list := range [][]mutant{diskMutants, sweepMutants, treeMutants, ownerMutants} {
		for _, m := range list {
			all = append(all, m.changes...)
		}
	}
	return all
}

// mutants lists all of them.
func mutants() (all []mutant) {
	for _, list := range [][]mutant{diskMutants, sweepMutants, treeMutants, ownerMutants} {
		all = append(all, list...)
	}
	return all
}

// diskMutants break the order of writes. Only a power cut shows them.
var diskMutants = []mutant{
	{"no-pack-fsync", "a pack is synced before its chunks are in the catalogue", "", []change{{
		"chunkstore/pack/writer.go",
		"func (w *writer) fsync() error {\n",
		"func (w *writer) fsync() error {\n\tif sim.Mutant(\"no-pack-fsync\") {\n\t\treturn nil\n\t}\n",
	}}},
	{"no-pack-dir-fsync", "the directory is synced with the first records of a new pack", "", []change{{
		"chunkstore/pack/writer.go",
		"\tif !w.isNew {\n",
		"\tif !w.isNew || sim.Mutant(\"no-pack-dir-fsync\") {\n",
	}}},
	{"no-dir-fsync", "a rename is durable when the directories are synced", "", []change{{
		"chunkstore/durable/durable.go",
		"func SyncDir(path string) error {\n",
		"func SyncDir(path string) error {\n\tif sim.Mutant(\"no-dir-fsync\") {\n\t\treturn nil\n\t}\n",
	}}},
	{"no-temp-fsync", "a file is synced before it is renamed to its name", "", []change{{
		"chunkstore/durable/temp.go",
		"\tif err := SyncFile(t.f); err != nil {\n",
		"\tif sim.Mutant(\"no-temp-fsync\") {\n\t} else if err := SyncFile(t.f); err != nil {\n",
	}}},
	{"catalogue-first", "a pack is synced before its chunks are in the catalogue, not after", "", []change{{
		"chunkstore/pack/commit.go",
		"\t\tif err := w.sync(end); err != nil {\n",
		"\t\tif sim.Mutant(\"catalogue-first\") {\n\t\t\tdefer func() { _ = w.sync(end) }()\n\t\t\tcontinue\n\t\t}\n\t\tif err := w.sync(end); err != nil {\n",
	}}},
	{"no-index-fsync", "the files of a snapshot are synced before it is in the tree", "", []change{{
		"datastore/finish.go",
		"func (ss *Session) syncFiles() error {\n",
		"func (ss *Session) syncFiles() error {\n\tif sim.Mutant(\"no-index-fsync\") {\n\t\treturn nil\n\t}\n",
	}}},
	{"no-commit-fsync", "the place in the tree is durable before a backup is acknowledged", "", []change{{
		"datastore/appear.go",
		"\tpending, final := pendingPath(snap), snapshotPath(snap)\n",
		"\tpending, final := pendingPath(snap), snapshotPath(snap)\n" +
			"\tif sim.Mutant(\"no-commit-fsync\") {\n\t\treturn true, s.root.Rename(from, final)\n\t}\n",
	}}},
	{"seen-early", "a snapshot is listed only when its place in the tree is durable", "backup,watch", []change{{
		"datastore/appear.go",
		"\tif err := s.move(from, pending); err != nil {\n",
		"\tif sim.Mutant(\"seen-early\") {\n\t\tpending = final\n\t}\n\tif err := s.move(from, pending); err != nil {\n",
	}}},
	{"pending-unannounced", "a crash does not hide a snapshot that was listed", "backup,watch", []change{{
		"datastore/appear.go",
		"func (s *Store) settle(snap wire.Snapshot) error {\n",
		"func (s *Store) settle(snap wire.Snapshot) error {\n\tif sim.Mutant(\"pending-unannounced\") {\n\t\treturn nil\n\t}\n",
	}}},
	{"no-chunk-sync", "chunks are durable before a backup is acknowledged", "", []change{{
		"datastore/finish.go",
		"\tif err := ss.puts.Sync(ctx); err != nil {\n",
		"\tif sim.Mutant(\"no-chunk-sync\") {\n\t} else if err := ss.puts.Sync(ctx); err != nil {\n",
	}}},
	{"sync-then-prove", "what is found by the proof of a backup is durable before it is acknowledged", "liar", []change{{
		"datastore/finish.go",
		"\t// What another session has put since then was found, too.\n",
		"\tif sim.Mutant(\"sync-then-prove\") {\n\t\treturn nil\n\t}\n",
	}}},
	{"copies-not-synced", "a sweep removes a pack only when its copies are durable", "", []change{{
		"chunkstore/pack/commit.go",
		"\t\tw := s.writers[no]\n",
		"\t\tw := s.writers[no]\n\t\tif s.sweep != nil && sim.Mutant(\"copies-not-synced\") {\n\t\t\tw = nil\n\t\t}\n",
	}}},
	{"no-adoption", "a pack that the catalogue does not know is learned when the store is opened", "", []change{{
		"chunkstore/pack/recover.go",
		"\t\tif !known {\n",
		"\t\tif !known && sim.Mutant(\"no-adoption\") {\n\t\t\tcontinue\n\t\t}\n\t\tif !known {\n",
	}}},
	{"torn-tail-kept", "what is torn behind the last sound record is not counted on", "", []change{{
		"chunkstore/pack/packfile/scan.go",
		"\treturn crypto.Sum(b) == e.Sum, nil\n",
		"\treturn crypto.Sum(b) == e.Sum || sim.Mutant(\"torn-tail-kept\"), nil\n",
	}}},
}

// sweepMutants break the rules by which garbage is told from what is in use.
var sweepMutants = []mutant{
	{"list-first", "the sweep begins before the snapshots are listed (PSA-2025-00019-1)", "", []change{{
		"datastore/gc/gc.go",
		"\tsw, err := s.BeginSweep(ctx)\n",
		"\tif sim.Mutant(\"list-first\") {\n\t\tif err := m.run(ctx); err != nil {\n\t\t\treturn m.report, err\n\t\t}\n\t}\n\tsw, err := s.BeginSweep(ctx)\n",
	}, {
		"datastore/gc/gc.go",
		"\tif err := m.run(ctx); err != nil {\n\t\treturn m.report, fmt.Errorf(\"collect garbage: %w\", err)\n",
		"\tif sim.Mutant(\"list-first\") {\n\t} else if err := m.run(ctx); err != nil {\n\t\treturn m.report, fmt.Errorf(\"collect garbage: %w\", err)\n",
	}}},
	{"put-not-held", "what running sessions have written is not swept", "", []change{{
		"chunkstore/pack/session.go",
		"\ts.follow(a.replaces, l)\n\ts.holdFor(se, l)\n",
		"\ts.follow(a.replaces, l)\n\tif !sim.Mutant(\"put-not-held\") {\n\t\ts.holdFor(se, l)\n\t}\n",
	}}},
	{"move-not-followed", "who holds a chunk goes on holding it where a sweep has moved it to", "", []change{{
		"chunkstore/pack/keep.go",
		"\tif len(from) == 0 {\n",
		"\tif len(from) == 0 || sim.Mutant(\"move-not-followed\") {\n",
	}}},
	{"held-ignored", "what a session counts on is not swept", "", []change{{
		"chunkstore/pack/sweep.go",
		"\theld := s.heldIn(no)\n",
		"\theld := s.heldIn(no)\n\tif sim.Mutant(\"held-ignored\") {\n\t\theld = nil\n\t}\n",
	}}},
	{"answer-not-held", "a session counts on every chunk it was told is known", "", []change{{
		"chunkstore/pack/keep.go",
		"\tl, ok, err := se.lookup(ctx, k)\n\tif err != nil {\n\t\treturn chunkstore.Info{}",
		"\tlook := se.lookup\n\tif sim.Mutant(\"answer-not-held\") {\n\t\tlook = se.s.lookup\n\t}\n\tl, ok, err := look(ctx, k)\n\tif err != nil {\n\t\treturn chunkstore.Info{}",
	}}},
	{"held-too-late", "a chunk that is condemned before a session holds it counts as not stored", "backup,collect,destroy", []change{{
		"chunkstore/pack/keep.go",
		"\t\tif s.condemned[at.Pack][at.Off] || s.hasDropped(at.Pack) {\n",
		"\t\tif !sim.Mutant(\"held-too-late\") && !sim.Mutant(\"tombstone-ignored\") && (s.condemned[at.Pack][at.Off] || s.hasDropped(at.Pack)) {\n",
	}, {
		"chunkstore/pack/keepall.go",
		"\t\tif s.packs[at.Pack] == nil || s.condemned[at.Pack][at.Off] || s.hasDropped(at.Pack) {\n",
		"\t\tif s.packs[at.Pack] == nil || !sim.Mutant(\"held-too-late\") && (s.condemned[at.Pack][at.Off] || s.hasDropped(at.Pack)) {\n",
	}}},
	{"duplicate-not-held", "a chunk that was sent and is there already is held", "", []change{{
		"chunkstore/pack/session.go",
		"\told, found, err := se.lookup(ctx, key)\n",
		"\told, found, err := se.lookup(ctx, key)\n\tif sim.Mutant(\"duplicate-not-held\") {\n\t\tse.s.mu.Lock()\n\t\tdelete(se.holds, old.Pack)\n\t\tse.s.mu.Unlock()\n\t}\n",
	}}},
	{"held-dies-with-session", "what a session has held stays for the sweep that is running", "", []change{{
		"chunkstore/pack/keep.go",
		"\tif s.sweep != nil {\n\t\ts.sweep.kept.merge",
		"\tif s.sweep != nil && !sim.Mutant(\"held-dies-with-session\") {\n\t\ts.sweep.kept.merge",
	}}},
	{"tombstone-ignored", "a condemned chunk counts as not stored", "", []change{{
		"chunkstore/pack/read.go",
		"\t\t\treturn l, !condemned, nil\n",
		"\t\t\treturn l, !condemned || sim.Mutant(\"tombstone-ignored\"), nil\n",
	}}},
	{"tombstone-dies-first", "a chunk of a pack that has been forgotten is looked for again, and not moved during the look", "backup,collect,destroy", []change{{
		"chunkstore/pack/keep.go",
		"\tleave, err := se.s.enterFlight(ctx, k.ID)\n",
		"\tleave, err := se.s.enterFlight(ctx, k.ID)\n\tif err == nil && sim.Mutant(\"tombstone-dies-first\") {\n\t\tleave()\n\t\tleave = func() {}\n\t}\n",
	}, {
		"chunkstore/pack/keep.go",
		"p != nil && p.Dropped\n",
		"p != nil && p.Dropped && !sim.Mutant(\"tombstone-dies-first\")\n",
	}, {
		"chunkstore/pack/read.go",
		"err != nil || p.Dropped\n",
		"err != nil || p.Dropped && !sim.Mutant(\"tombstone-dies-first\")\n",
	}, {
		// Chunks that are looked up at once are safe from it: nothing is held by a
		// catalogue that has changed meanwhile.
		"chunkstore/pack/keepall.go",
		"\tstill := s.moves == moves\n",
		"\tstill := s.moves == moves && !sim.Mutant(\"tombstone-dies-first\")\n",
	}}},
	{"tree-only", "a collection sees the snapshots in the trash", "", []change{{
		"datastore/collect.go",
		"\tif list, err = s.trashIndexes(ctx, list); err != nil {\n",
		"\tif sim.Mutant(\"tree-only\") {\n\t} else if list, err = s.trashIndexes(ctx, list); err != nil {\n",
	}}},
	{"unsynced-removal", "what a snapshot needed goes only when its removal is durable", "destroy,collect,backup", []change{{
		"datastore/forgetgroup.go",
		"\ts.leaving.RLock()\n\tdefer s.leaving.RUnlock()\n",
		"\tif !sim.Mutant(\"unsynced-removal\") {\n\t\ts.leaving.RLock()\n\t\tdefer s.leaving.RUnlock()\n\t}\n",
	}}},
	{"trash-first", "a collection lists the tree before the trash", "", []change{{
		"datastore/collect.go",
		"\tlist, err := s.treeIndexes(ctx)\n",
		"\tif sim.Mutant(\"trash-first\") {\n\t\tlist, err := s.trashIndexes(ctx, nil)\n\t\tif err != nil {\n\t\t\treturn nil, err\n\t\t}\n" +
			"\t\tmore, err := s.treeIndexes(ctx)\n\t\treturn append(list, more...), err\n\t}\n\tlist, err := s.treeIndexes(ctx)\n",
	}}},
	{"returns-unseen", "nothing comes back from the trash while a collection lists", "restore,collect,forget", []change{{
		"datastore/deleted.go",
		"\ts.returns.Lock()\n\tdefer s.returns.Unlock()\n",
		"\tif !sim.Mutant(\"returns-unseen\") {\n\t\ts.returns.Lock()\n\t\tdefer s.returns.Unlock()\n\t}\n",
	}}},
	{"moved-is-gone", "an index whose snapshot has gone to the trash since it was listed is read there", "", []change{{
		"datastore/collect.go",
		"\tplace, same, err := s.inode(f, places)\n",
		"\tplace, same, err := s.inode(f, places)\n\tif sim.Mutant(\"moved-is-gone\") && err == nil && !same {\n\t\treturn \"\", chunkstore.ErrNotExist\n\t}\n",
	}}},
}

// treeMutants break the rules of snapshots.
var treeMutants = []mutant{
	{"no-proof", "a backup is not acknowledged before every reference has been looked up", "", []change{{
		"datastore/finish.go",
		"\tif err := ss.prove(ctx, classes); err != nil {\n",
		"\tif sim.Mutant(\"no-proof\") {\n\t} else if err := ss.prove(ctx, classes); err != nil {\n",
	}}},
	{"base-not-held", "the snapshot that a session builds on is not removed", "", []change{{
		"datastore/base.go",
		"\tss.base, ss.unbase = last, release\n",
		"\tss.base, ss.unbase = last, release\n\tif sim.Mutant(\"base-not-held\") {\n\t\trelease()\n\t}\n",
	}}},
	{"hold-ignored", "a snapshot that is read is not removed", "", []change{{
		"datastore/locks.go",
		"\tif l.held[s] != 0 {\n",
		"\tif l.held[s] != 0 && !sim.Mutant(\"hold-ignored\") {\n",
	}}},
	{"protection-ignored", "a protected snapshot is not removed", "", []change{{
		"datastore/manage.go",
		"\tif protected {\n\t\treturn fmt.Errorf(\"snapshot %s: %w\", snap, wire.ErrProtected)\n",
		"\tif protected && !sim.Mutant(\"protection-ignored\") {\n\t\treturn fmt.Errorf(\"snapshot %s: %w\", snap, wire.ErrProtected)\n",
	}}},
	{"wall-clock", "the trash time does not follow the wall clock", "", []change{{
		"datastore/clock.go",
		"\treturn min(to-from, clockStep.Milliseconds())\n",
		"\tif sim.Mutant(\"wall-clock\") {\n\t\treturn to - from\n\t}\n\treturn min(to-from, clockStep.Milliseconds())\n",
	}}},
	{"early-name", "a snapshot is in the tree only when it is complete", "", []change{{
		"datastore/finish.go",
		"\tclasses, err := ss.settleManifest(ctx)\n",
		"\tif sim.Mutant(\"early-name\") {\n\t\terr := ss.commit()\n\t\tif err == nil {\n\t\t\terr = ss.puts.Sync(ctx)\n\t\t}\n\t\treturn err\n\t}\n\tclasses, err := ss.settleManifest(ctx)\n",
	}}},
	{"temp-kept", "what a killed session left in .tmp goes when the store is opened", "", []change{{
		"datastore/datastore.go",
		"func (s *Store) sweepTemp() error {\n",
		"func (s *Store) sweepTemp() error {\n\tif sim.Mutant(\"temp-kept\") {\n\t\treturn nil\n\t}\n",
	}}},
}

// ownerMutants break the rules of classes and owners.
var ownerMutants = []mutant{
	{"plain-replaces-encrypted", "a plain chunk does not take the place of an encrypted one of its name", "", []change{{
		"chunkstore/pack/session.go",
		"\ttwin, claim, err := se.twin(ctx, r)\n",
		"\tif sim.Mutant(\"plain-replaces-encrypted\") && key.Class() == chunkstore.ClassPlain {\n\t\tlist, _, _ := se.s.holders(key)\n" +
			"\t\tfor _, h := range list {\n\t\t\tif h.Key.Class() == chunkstore.ClassEncrypted && !h.Claimed() {\n" +
			"\t\t\t\tr.Key, key, old, found = h.Key, h.Key, h.Location, false\n\t\t\t\tbreak\n\t\t\t}\n\t\t}\n\t}\n" +
			"\ttwin, claim, err := se.twin(ctx, r)\n",
	}}},
	{"class-forgotten", "a chunk of one class does not count as there because one of the other is", "", []change{{
		"chunkstore/pack/session.go",
		"\tif found && !force && se.s.healthy(old) == nil {\n",
		"\tif list, _, _ := se.s.holders(key); len(list) > 0 && sim.Mutant(\"class-forgotten\") {\n\t\treturn false, nil\n\t}\n" +
			"\tif found && !force && se.s.healthy(old) == nil {\n",
	}}},
	{"added-without-proof", "a plain chunk that a stranger sends is compared with its name", "", []change{{
		"datastore/chunk.go",
		"\tif !encrypted {\n\t\treturn ss.store.proofs.prove(ctx, c)\n",
		"\tif !encrypted && !sim.Mutant(\"added-without-proof\") {\n\t\treturn ss.store.proofs.prove(ctx, c)\n",
	}}},
	{"claimed-without-proof", "who has not sent the same bytes has no part in another owner's copy", "", []change{{
		"chunkstore/pack/session.go",
		"if h.Key == r.Key || !h.SameBytes(want) {\n",
		"if h.Key == r.Key || h.Key.Class() != r.Key.Class() || !h.SameBytes(want) && !sim.Mutant(\"claimed-without-proof\") {\n",
	}, {
		"chunkstore/pack/session.go",
		"if ok && l.SameBytes(want) && se.s.healthy(l) == nil {\n",
		"if ok && (l.SameBytes(want) || sim.Mutant(\"claimed-without-proof\")) && se.s.healthy(l) == nil {\n",
	}}},
	{"copy-of-another-owner-read", "a snapshot reads the copies of its own owner", "", []change{{
		"chunkstore/pack/read.go",
		"\tl, ok, err := s.lookup(ctx, k)\n\tif err == nil && !ok && s.healMiss(ctx) {\n",
		"\tif list, _, _ := s.holders(k); sim.Mutant(\"copy-of-another-owner-read\") {\n\t\tfor _, h := range list {\n" +
			"\t\t\tif h.Key.Class() == k.Class() && h.Key != k {\n\t\t\t\tk = h.Key\n\t\t\t\tbreak\n\t\t\t}\n\t\t}\n\t}\n" +
			"\tl, ok, err := s.lookup(ctx, k)\n\tif err == nil && !ok && s.healMiss(ctx) {\n",
	}}},
	{"copies-follow-owner", "a change of owner changes no copy", "", []change{{
		"datastore/group.go",
		"\tid, err := s.readCopies(path.Join(groupPath(g), copiesName))\n",
		"\tif sim.Mutant(\"copies-follow-owner\") {\n\t\treturn owner, ownerErr\n\t}\n\tid, err := s.readCopies(path.Join(groupPath(g), copiesName))\n",
	}}},
	{"copies-of-nobody", "whose copies a group reads counts only if the group is there", "backup", []change{{
		"datastore/group.go",
		"\tif errors.Is(ownerErr, chunkstore.ErrNotExist) {\n\t\treturn \"\", ownerErr //",
		"\tif errors.Is(ownerErr, chunkstore.ErrNotExist) && !sim.Mutant(\"copies-of-nobody\") {\n\t\treturn \"\", ownerErr //",
	}, {
		"datastore/finish.go",
		"\tif err == nil && ownerTag(copies) != ss.copies {\n",
		"\tif err == nil && ownerTag(copies) != ss.copies && !sim.Mutant(\"copies-of-nobody\") {\n",
	}}},
	{"metadata-marked-as-content", "a collection looks for metadata among metadata", "", []change{{
		"datastore/collect.go",
		"\treturn Scope{Class: class, Owner: ownerTag(copies), Doubt: err}\n",
		"\tif sim.Mutant(\"metadata-marked-as-content\") {\n\t\tclass &^= chunkstore.ClassPlainMeta\n\t}\n" +
			"\treturn Scope{Class: class, Owner: ownerTag(copies), Doubt: err}\n",
	}}},
	{"content-taken-for-metadata", "what was sent as content stands for no metadata", "", []change{{
		"datastore/keep.go",
		"\t\t_, err := ss.puts.Keep(ctx, keys[i])\n",
		"\t\t_, err := ss.puts.Keep(ctx, keys[i])\n\t\tif ref := refs[i]; err != nil && sim.Mutant(\"content-taken-for-metadata\") {\n" +
			"\t\t\tref.Class &^= chunkstore.ClassPlainMeta\n\t\t\t_, err = ss.puts.Keep(ctx, ref.Key(ss.copies))\n\t\t}\n",
	}}},
	{"claim-lost-in-sweep", "a record stays while one of those who claim it needs it", "", []change{{
		"chunkstore/pack/sweepcount.go",
		"\treturn slices.ContainsFunc(c.holders, func(h catalogue.Held) bool { return used(h.Key) })\n",
		"\treturn slices.ContainsFunc(c.holders, func(h catalogue.Held) bool {\n\t\treturn used(h.Key) && (c.Claim || !h.Claimed() || !sim.Mutant(\"claim-lost-in-sweep\"))\n\t})\n",
	}}},
	{"returned-reads-group", "what comes back to a group that was made again reads what it has read", "backup,forget,restore", []change{{
		"datastore/deleted.go",
		"\tif err != nil || copies == w.Copies {\n",
		"\tif err != nil || copies == w.Copies || sim.Mutant(\"returned-reads-group\") {\n",
	}}},
}

// noticedNear is a seed shortly before the one that notices a mutant which one in tens of
// thousands of schedules notices, 0 for all others. It goes with the code of today: any
// change of what is simulated moves it, and costs the search from the beginning.
func noticedNear(mutant string) uint64 {
	switch mutant {
	case "tombstone-dies-first":
		return 65_500
	case "torn-tail-kept":
		return 49_000
	}
	return 0
}
