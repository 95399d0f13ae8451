package schedule

// tunings make the store small enough for a schedule to fill packs, and cheap
// to open. They change numbers only.
var tunings = []change{
	{"chunkstore/pack/store.go", "PackSizeDefault = 64 << 20", "PackSizeDefault = 400"},
	{"chunkstore/pack/store.go", "packSizeMin     = 4 << 10", "packSizeMin     = 100"},
	{"chunkstore/pack/store.go", "pendingMax = 100_000", "pendingMax = 7"},
	{"chunkstore/pack/rebuild.go", "rebuildBatch = 250_000", "rebuildBatch = 5"},
	{"chunkstore/pack/catalogue/catalogue.go", "NoStatistics: true,", "NoStatistics: true, PageSize: 1 << 10,"},
	{"chunkstore/pack/catalogue/catalogue.go", "allocSize = 64 << 10", "allocSize = 4 << 10"},
	{"chunkstore/pack/packfile/scan.go", "scanWindow = 1 << 20", "scanWindow = 1 << 10"},
	{"datastore/trash.go", "reserveSize  = 1 << 20", "reserveSize  = 1 << 8"},
	{"datastore/trash.go", "reservePiece = 32 << 10", "reservePiece = 1 << 5"},
	{"datastore/index/writer.go", "bufferSize = 64 << 10", "bufferSize = 1 << 10"},
	{"datastore/index/writer.go", "pendingSize = 8 << 10", "pendingSize = 1 << 10"},
	{"datastore/resume.go", "resumedAtOnce = 2048", "resumedAtOnce = 2"},
	{"datastore/gc/gc.go", "batchSize = 4096", "batchSize = 8"},
	{"datastore/gc/set.go", "slotsMin = 1 << 10", "slotsMin = 1 << 4"},
	{"chunkstore/pack/reserve.go", "reserveCatalogue = 4 << 20", "reserveCatalogue = 1 << 8"},
	{"chunkstore/pack/reserve.go", "const least = 1 << 20", "const least = 1 << 8"},
	{"chunkstore/pack/block.go", "const scrubBlock = 256 << 10", "const scrubBlock = 1 << 10"},
	{"chunkstore/pack/catalogue/sum.go", "sumBuffer = 64 << 10", "sumBuffer = 1 << 12"},
}
