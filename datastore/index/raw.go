package index

import "io"

// Raw reads the whole file of the index, header included, as it lies there. It
// may be read until the index is closed.
func (x *Reader) Raw() *io.SectionReader {
	return io.NewSectionReader(x.r, 0, x.recordOff(x.count))
}
