package manifest

import (
	"fmt"
	"strconv"
)

// CanonicalJSON returns the form of a JSON text that signatures are made over
// (section 4.5 of the formats specification): no white space, members sorted by
// the bytes of their names, as few escapes as can be. null and numbers that are
// not integers within int64 or uint64 are errors.
func CanonicalJSON(raw []byte) ([]byte, error) {
	n, err := parseJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("canonical form: %w", err)
	}
	if err := checkCanonical(n); err != nil {
		return nil, fmt.Errorf("canonical form: %w", err)
	}
	return appendNode(nil, n, ""), nil
}

func checkCanonical(n *node) error {
	switch n.kind {
	case nullNode:
		return fmt.Errorf("null at byte %d: %w", n.off, ErrFormat)
	case numberNode:
		_, errSigned := strconv.ParseInt(n.text, 10, 64)
		_, errUnsigned := strconv.ParseUint(n.text, 10, 64)
		if errSigned != nil && errUnsigned != nil || n.text == "-0" {
			return fmt.Errorf("number %s at byte %d is not a 64-bit integer: %w", clip(n.text), n.off, ErrFormat)
		}
	}
	for i := range n.kids {
		if err := checkCanonical(&n.kids[i]); err != nil {
			return err
		}
	}
	return nil
}
