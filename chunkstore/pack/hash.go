package pack

import (
	"hash/crc32"

	"holdfast/crypto"
)

// sum is the checksum over stored bytes.
func sum(b []byte) [32]byte { return crypto.Sum(b) }

// castagnoli is the polynomial of every CRC in this package.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
