package crypto_test

import (
	"fmt"
	"testing"

	"holdfast/crypto"
)

func BenchmarkSum(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10, 2 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				crypto.Sum(data)
			}
		})
	}
}
