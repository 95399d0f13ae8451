package pack

// scrubBlock is how much of a pack is read at a time, in bytes: so little that
// the processor still has it in its own cache when it is hashed. Reading ahead
// is the work of the kernel.
const scrubBlock = 256 << 10

// block holds the part of a file that is being read.
type block struct {
	at   int64  // offset of data in the file
	data []byte // what can be read
	buf  []byte
}

// from returns what is at hand from off on.
func (bl *block) from(off int64) []byte {
	if i := off - bl.at; i >= 0 && i < int64(len(bl.data)) {
		return bl.data[i:]
	}
	return nil
}

// drop lets go of what is at hand.
func (bl *block) drop() { bl.data = nil }

// room makes room for n bytes at off, scrubBlock at most.
func (bl *block) room(off int64, n int) []byte {
	if bl.buf == nil {
		bl.buf = make([]byte, scrubBlock)
	}
	bl.at, bl.data = off, bl.buf[:n]
	return bl.data
}
