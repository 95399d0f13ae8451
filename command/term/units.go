package term

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// sizeUnits are the units of sizes, by their lower-case names.
var sizeUnits = map[string]float64{
	"": 1, "b": 1,
	"k": 1e3, "kb": 1e3, "kib": 1 << 10,
	"m": 1e6, "mb": 1e6, "mib": 1 << 20,
	"g": 1e9, "gb": 1e9, "gib": 1 << 30,
	"t": 1e12, "tb": 1e12, "tib": 1 << 40,
	"p": 1e15, "pb": 1e15, "pib": 1 << 50,
	"e": 1e18, "eb": 1e18, "eib": 1 << 60,
}

var (
	errSize      = errors.New(`want a number with a unit, as "20MiB" or "1.5 GB"`)
	errSizeLarge = errors.New("too large, want less than 8 EiB")
)

// ParseSize reads a size in bytes: a number, and an SI or IEC unit behind it.
func ParseSize(text string) (int64, error) {
	text = strings.TrimSpace(text)
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(text)
	}
	number := text[:end]
	unit, ok := sizeUnits[strings.ToLower(strings.TrimSpace(text[end:]))]
	if !ok {
		return 0, errSize
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && unit == 1 {
		return n, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errSize
	}
	if f*unit >= math.MaxInt64 {
		return 0, errSizeLarge
	}
	return int64(f * unit), nil
}

// NotNil keeps null out of JSON.
func NotNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// OrDash shows in a table what may be empty.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
