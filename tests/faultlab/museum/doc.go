// Package museum holds the bugs that other backup programs, and the libraries below
// this one, have had, each as a test of TestMuseum or of another package. The
// numbers are those of the fault plan. The package has no code of its own besides its tests.
//
//	M1   PBS PSA-2025-00019-1   here; tests/faultlab/schedule in all orders
//	M2   PBS touch beside unlink  chunkstore/pack TestSweepKeepsWhatSessionsCountOn, TestSweepBesidePuts
//	M3   PBS S3 marker and object  does not apply: a chunk is in one place; its races are in TestSweepBesidePuts
//	M4   PBS 5710               here
//	M5   PBS 5982, atime        here
//	M6   PBS empty chunks after a crash  tests/faultlab/power and blocks, with the missing fsync as a mutant
//	M7   PBS 79f6a79c, the check that was removed  here
//	M8   restic 2715, standby   tests/faultlab/limits TestStoppedClient
//	M9   restic 4612, a list error is no empty list  here; tests/faultlab/ioerr TestReadFails
//	M10  restic 4523, compressor  client/backup TestFlippedBitIsCaughtBeforeSending
//	M11  restic 21820, entries lost in a rewrite  here
//	M12  restic 1115 and others, index without data  here; tests/faultlab/rot
//	M13  restic 5467, first attempts counted as errors  chunkstore/pack TestScrubReadsAgain; ioerr TestReadFails
//	M14  restic 1445, separators of another system  datastore/wire TestCheckFileName, tests/abuse TestHostileNames
//	M15  restic 3619, parent in the future  here
//	M16  restic, poisoned retention  datastore/prune TestProperties for what is chosen; a writer that names
//	     times of the future is not kept from it here
//	M17  Kopia 1949 and others, gone after maintenance  here; tests/faultlab/kill and power
//	M18  Kopia on Garage, times of another machine  here, with M5
//	M19  Kopia 1570, restored short  client/restore TestToFile, tests/faults TestImages
//	M20  Borg 4829, hash index  chunkstore/pack TestIndexAgainstModel, TestModel
//	M21  Borg 3444, repair removes what is sound  here; datastore/verify TestRepairOfAHealthyStoreChangesNothing
//	M22  Borg 1138, I/O or network errors  tests/faultlab/ioerr; tests/interop TestLostConnection, tests/abuse TestCutEverywhere
//	M23  Borg CVE-2016-10099 and CVE-2023-36811, one thing taken for another  datastore/image
//	     TestManifestMustBeTheSnapshots, TestIndexMustBeTheManifests; tests/faults TestDamage (forged)
//	M24  Borg append-only  datastore/server TestPutOnly, TestPutOnlyOverREST
//	M25  bbolt 562 and others, power loss and full disks  here; tests/faultlab/power TestCatalogueNeverSynced
//	M26  bbolt 567, torn first pages  here
//	M27  bup 25, dittofs 1879, edges of holes  client/restore TestZerosStayHoles, datastore/image TestGapIsAnErrorNeverZeros
//	M28  Borg 327 and others, full disks  tests/faultlab/limits TestDiskFull, ioerr TestWriteFails
//	M29  PBS, first writer wins  datastore TestTwoBlobsUnderOneName, TestPoisonedStoreHealsWithTheNextUpload; tests/abuse TestPoison
//	M30  PBS, unsigned manifest  datastore/verify TestStrippedSignatureIsFound, tests/faults TestDamage (forged)
//	M31  etcd 3.5, two indexes and a crash  tests/faultlab/blocks, kill: packs are the truth and the catalogue one transaction
//	M32  collecting by the wall clock  tests/faultlab/clock
package museum
