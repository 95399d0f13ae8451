package api

import (
	"math"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// The methods of a backup session. Who has the session may ask for them.
const (
	UploadBlob    Op = "POST /blob"
	OpenDynamic   Op = "POST /dynamic_index"
	AppendDynamic Op = "PUT /dynamic_index"
	DynamicChunk  Op = "POST /dynamic_chunk"
	CloseDynamic  Op = "POST /dynamic_close"
	OpenFixed     Op = "POST /fixed_index"
	AppendFixed   Op = "PUT /fixed_index"
	FixedChunk    Op = "POST /fixed_chunk"
	CloseFixed    Op = "POST /fixed_close"
	Previous      Op = "GET /previous"
	PreviousTime  Op = "GET /previous_backup_time"
	Finish        Op = "POST /finish"
	SendSpeed     Op = "POST /speedtest"
	Resume        Op = "GET " + wire.ResumePath
)

// The methods of a reader session.
const (
	ReadFile  Op = "GET /download"
	ReadChunk Op = "GET /chunk"
	ReadSpeed Op = "GET /speedtest"
)

// Bounds of a session.
const (
	// WritersMax is how many index writers a session has in its life (section 2.3 of
	// the protocol specification).
	WritersMax = 256
	// BlobsMax is how many small files a snapshot has, its manifest among them.
	BlobsMax = 256
	// ArchiveSizeMax is the largest archive, in bytes.
	ArchiveSizeMax = math.MaxInt64
)

// whole is a number that has to be given.
func whole(name string, low, high int64) Param {
	return Param{Name: name, Kind: Integer, Check: Within(low, high)}
}

// BackupRows are the methods of a backup session (section 2.3 of the protocol
// specification). The caller owns the slice.
func BackupRows() []Method {
	wid, archive := whole("wid", 1, WritersMax), needed("archive-name", CheckFile)
	chunk := []Param{wid, needed("digest", CheckDigest), whole("size", 1, chunkstore.PlainSizeMax),
		whole("encoded-size", chunkstore.BlobSizeMin+1, chunkstore.BlobSizeMax)}
	entries := []Param{wid, {Name: "digest-list", Kind: Strs, Check: CheckDigest}, {Name: "offset-list", Kind: Ints}}
	closing := func(least int64) []Param {
		return []Param{wid, whole("chunk-count", least, ArchiveSizeMax), whole("size", least, ArchiveSizeMax), needed("csum", CheckDigest)}
	}
	return []Method{
		{Op: UploadBlob, About: "add a small file", Raw: true,
			Params: []Param{needed("file-name", CheckFile), whole("encoded-size", chunkstore.BlobSizeMin, chunkstore.BlobSizeMax)}},
		{Op: OpenDynamic, About: "begin an archive of chunks of any size; answers with its writer", Answer: int64(0), Params: []Param{archive}},
		{Op: AppendDynamic, About: "append chunks to an archive", Params: entries},
		{Op: DynamicChunk, About: "add a chunk", Raw: true, Params: chunk},
		{Op: CloseDynamic, About: "end an archive", Params: closing(1)},
		{Op: OpenFixed, About: "begin an archive of chunks of one size; answers with its writer", Answer: int64(0),
			Params: []Param{archive, number("size", 1, ArchiveSizeMax), optional("reuse-csum", CheckDigest)}},
		{Op: AppendFixed, About: "put chunks into an archive", Params: entries},
		{Op: FixedChunk, About: "add a chunk", Raw: true, Params: chunk},
		{Op: CloseFixed, About: "end an archive", Params: closing(0)},
		{Op: Previous, About: "read an index of the last snapshot; its chunks may be referred to", Answer: Bytes{}, Params: []Param{archive}},
		{Op: PreviousTime, About: "tell when the last snapshot was made", Answer: int64(0)},
		{Op: Finish, About: "make the snapshot"},
		{Op: SendSpeed, About: "take bytes and keep none", Raw: true},
		{Op: Resume, About: "name the chunks that an unfinished session of the group has left", Answer: Bytes{}},
	}
}

// ReaderRows are the methods of a reader session (section 3.2 of the protocol
// specification). The caller owns the slice.
func ReaderRows() []Method {
	return []Method{
		{Op: ReadFile, About: "read a file as it is stored; the chunks of an index may be read then", Answer: Bytes{}, Params: []Param{needed("file-name", CheckFile)}},
		{Op: ReadChunk, About: "read a chunk as it is stored", Answer: Bytes{}, Params: []Param{needed("digest", CheckDigest)}},
		{Op: ReadSpeed, About: "send bytes of no meaning", Answer: Bytes{}},
	}
}
