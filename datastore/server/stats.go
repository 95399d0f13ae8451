package server

import (
	"fmt"

	"holdfast/datastore"
)

// upload is a chunk as the statistics count it. Sizes are in bytes.
type upload struct {
	plain  uint32
	stored uint32 // as it was sent
	again  bool   // the session knew it before
}

// count adds an upload.
func count(s *datastore.UploadStats, u upload) {
	s.Count++
	s.Size += uint64(u.plain)
	s.CompressedSize += uint64(u.stored)
	if u.again {
		s.Duplicates++
	}
}

// merge adds what a writer counted to the sum of its session.
func merge(s *datastore.UploadStats, w datastore.UploadStats) {
	s.Count += w.Count
	s.Size += w.Size
	s.CompressedSize += w.CompressedSize
	s.Duplicates += w.Duplicates
}

// describe says in one line what came over the network for an archive.
func describe(s datastore.UploadStats) string {
	if s.Count == 0 {
		return "no chunk was sent"
	}
	return fmt.Sprintf("%d chunks sent, %s in %s, %d of them again",
		s.Count, size(s.Size), size(s.CompressedSize), s.Duplicates)
}

// size writes a number of bytes for a person.
func size(n uint64) string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// plural counts things: "1 pack", "2 packs".
func plural(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
