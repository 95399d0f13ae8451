package blob_test

import (
	"errors"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
)

// A chunk is sealed with a key, and opened and proven by its name.
func ExampleCodec() {
	key, err := crypto.GenerateKey(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	codec, err := blob.NewCodec(blob.Options{Key: key, Encrypt: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	plain := chunkstore.Plain("the content of a chunk")
	id := codec.Name(plain)
	raw, err := codec.Encode(nil, plain)
	if err != nil {
		fmt.Println(err)
		return
	}

	opened, err := codec.DecodeChunk(nil, id, raw, len(plain))
	fmt.Printf("%s, %v\n", opened, err)

	raw[len(raw)-1] ^= 1
	_, err = codec.DecodeChunk(nil, id, raw, len(plain))
	fmt.Println("after a flipped bit it is corrupt:", errors.Is(err, chunkstore.ErrCorrupt))
	// Output:
	// the content of a chunk, <nil>
	// after a flipped bit it is corrupt: true
}
