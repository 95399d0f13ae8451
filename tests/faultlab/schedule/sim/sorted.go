package sim

import (
	"bytes"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"unsafe"
)

// Sorted goes through a map in an order that is always the same. It stands for
// a loop over the map. Keys that are pointers have no such order.
func Sorted[M ~map[K]V, K comparable, V any](m M) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		keys := make([]K, 0, len(m))
		for k := range m {
			keys = append(keys, k)
		}
		if len(keys) > 1 {
			sortKeys(keys)
		}
		for _, k := range keys {
			if v, ok := m[k]; ok && !yield(k, v) {
				return
			}
		}
	}
}

func sortKeys[K comparable](keys []K) {
	switch kind := reflect.TypeFor[K]().Kind(); kind {
	case reflect.Pointer:
	case reflect.String:
		slices.SortFunc(keys, func(a, b K) int {
			return strings.Compare(*(*string)(unsafe.Pointer(&a)), *(*string)(unsafe.Pointer(&b)))
		})
	case reflect.Struct, reflect.Interface:
		slices.SortFunc(keys, func(a, b K) int { return bytes.Compare(fmt.Append(nil, a), fmt.Append(nil, b)) })
	default: // integers, and arrays of bytes
		slices.SortFunc(keys, func(a, b K) int { return bytes.Compare(memory(&a), memory(&b)) })
	}
}

func memory[K any](k *K) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(k)), unsafe.Sizeof(*k)) }
