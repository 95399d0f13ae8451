package chunkstore_test

import (
	"context"
	"errors"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/chunkstore/mem"
)

// A session puts chunks, and after Sync they are durable. What is there already is not
// stored again.
func Example() {
	ctx := context.Background()
	store := mem.New()
	defer store.Close()
	codec, err := blob.NewCodec(blob.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	plain := chunkstore.Plain("what stood in the image")
	raw, err := codec.Encode(nil, plain)
	if err != nil {
		fmt.Println(err)
		return
	}
	chunk := chunkstore.Chunk{ID: codec.Name(plain), PlainSize: uint32(len(plain)), Blob: raw}

	session, err := store.Begin(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		added, err := session.Put(ctx, chunk)
		fmt.Println("added:", added, err)
	}
	fmt.Println("durable:", errors.Join(session.Sync(ctx), session.Close()))

	stored, err := store.Get(ctx, chunk.Key())
	if err != nil {
		fmt.Println(err)
		return
	}
	back, err := codec.DecodeChunk(nil, chunk.ID, stored, len(plain))
	fmt.Printf("%s, %v\n", back, err)
	// Output:
	// added: true <nil>
	// added: false <nil>
	// durable: <nil>
	// what stood in the image, <nil>
}

// Who names a chunk by a Ref leaves open whose copy is meant; with an owner it becomes
// the Key that a store finds chunks by. Plain chunks are everybody's.
func ExampleRef_Key() {
	alice, bob := chunkstore.OwnerOf("alice"), chunkstore.OwnerOf("bob")
	for _, class := range []chunkstore.Class{chunkstore.ClassPlain, chunkstore.ClassEncrypted} {
		ref := chunkstore.Ref{ID: chunkstore.ID{1}, Size: 4096, Class: class}
		fmt.Println(class, "one for both:", ref.Key(alice) == ref.Key(bob))
	}
	// Output:
	// plain one for both: true
	// encrypted one for both: false
}
