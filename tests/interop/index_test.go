package interop

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"holdfast/tests/harness"
)

// Creating an index, section 2.5.
func TestIndexCreation(t *testing.T) {
	t.Parallel()
	b := server.backup(t, server.alice, newGroup("vm"))
	for name, c := range map[string]struct {
		path string
		kv   []string
	}{
		"fixed called didx":   {"/fixed_index", []string{"archive-name", "a.didx", "size", "1"}},
		"dynamic called fidx": {"/dynamic_index", []string{"archive-name", "a.fidx"}},
		"called blob":         {"/dynamic_index", []string{"archive-name", "a.blob"}},
		"no extension":        {"/dynamic_index", []string{"archive-name", "a"}},
		"only the extension":  {"/dynamic_index", []string{"archive-name", ".didx"}},
		"no name":             {"/dynamic_index", nil},
		"size 0":              {"/fixed_index", []string{"archive-name", "a.fidx", "size", "0"}},
		"size negative":       {"/fixed_index", []string{"archive-name", "a.fidx", "size", "-5"}},
		"size no integer":     {"/fixed_index", []string{"archive-name", "a.fidx", "size", "9223372036854775808"}}, // the text sets no other bound
		"size of dynamic":     {"/dynamic_index", []string{"archive-name", "a.didx", "size", "5"}},
		"unknown parameter":   {"/dynamic_index", []string{"archive-name", "a.didx", "colour", "blue"}},
		"reuse without base":  {"/fixed_index", []string{"archive-name", "a.fidx", "size", "1", "reuse-csum", digestOf(nil)}},
		"reuse without size":  {"/fixed_index", []string{"archive-name", "a.fidx", "reuse-csum", digestOf(nil)}},
		"reuse no digest":     {"/fixed_index", []string{"archive-name", "a.fidx", "size", "1", "reuse-csum", "x"}},
	} {
		if a := b.do(t, "POST", c.path, nil, c.kv...); a.status != 400 {
			t.Errorf("%s: %s", name, a)
		}
	}
	b.do(t, "POST", "/no_index", nil).refused(t, 404)
	b.do(t, "GET", "/fixed_index", nil).refused(t, 404)
	first := b.index(t, "a.didx")
	for i := 1; i < 5; i++ { // one counter for both kinds
		name := fmt.Sprintf("b%d.didx", i)
		var more []string
		if i%2 == 0 {
			name, more = fmt.Sprintf("b%d.fidx", i), []string{"size", "1000"}
		}
		if wid := b.index(t, name, more...); wid != first+i {
			t.Errorf("writer %d after %d", wid, first+i-1)
		}
	}
}

// At most 256 writers can be used in a session.
func TestManyWriters(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	b := server.backup(t, server.alice, newGroup("vm"))
	c := newChunk([]byte("c"))
	sum := dynamicSum(t, []string{c.digest}, []uint64{1})
	for i := 1; i <= 256; i++ {
		wid := b.index(t, "a.didx")
		if wid != i {
			t.Fatalf("writer %d has the number %d", i, wid)
		}
		if i == 1 {
			b.chunk(t, "dynamic", wid, c)
		}
		b.put(t, "dynamic", list{wid, []string{c.digest}, []int64{0}}).null(t)
		b.end(t, "dynamic", wid, 1, 1, sum).null(t)
	}
	if a := b.do(t, "POST", "/dynamic_index", nil, "archive-name", "a.didx"); a.status == 200 {
		var wid int
		a.into(t, &wid)
		b.put(t, "dynamic", list{wid, []string{c.digest}, []int64{0}}).refused(t, 400)
	} else {
		a.refused(t, 400)
	}
}

// Appending to a dynamic index, section 2.6.
func TestDynamicAppend(t *testing.T) {
	t.Parallel()
	b := server.backup(t, server.alice, newGroup("host"))
	wid, fixed := b.index(t, "root.pxar.didx"), b.index(t, "disk.img.fidx", "size", "10")
	x, y, unknown := newChunk(noise(1, 100)), newChunk(noise(2, 50)), newChunk(noise(3, 10))
	b.chunk(t, "dynamic", wid, x)
	b.chunk(t, "dynamic", wid, y)
	two := []string{x.digest, y.digest}
	for name, l := range map[string]list{
		"not at the beginning":  {wid, two[:1], []int64{1}},
		"the end for the start": {wid, two[:1], []int64{100}},
		"negative offset":       {wid, two[:1], []int64{-1}},
		"unknown chunk":         {wid, []string{unknown.digest}, []int64{0}},
		"no digest":             {wid, []string{"x"}, []int64{0}},
		"capitals":              {wid, []string{strings.ToUpper(x.digest)}, []int64{0}},
		"more digests":          {wid, two, []int64{0}},
		"more offsets":          {wid, two[:1], []int64{0, 100}},
		"no such writer":        {99, two[:1], []int64{0}},
		"writer 0":              {0, two[:1], []int64{0}},
		"writer 257":            {257, two[:1], []int64{0}},
		"fixed writer":          {fixed, two[:1], []int64{0}},
	} {
		b.put(t, "dynamic", l).refused(t, 400)
		if t.Failed() {
			t.Logf("%s", name)
		}
	}
	for _, body := range []string{"", "[]", "{", `{"wid":1}`, `{"wid":1,"digest-list":"x","offset-list":[0]}`, `{"wid":"1","digest-list":[],"offset-list":[]}`,
		`{"wid":1,"digest-list":null,"offset-list":null}`, `{"wid":1,"digest-list":[],"offset-list":[],"colour":1}`} {
		a, err := b.roundTrip("PUT", "/dynamic_index", "application/json", []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		a.refused(t, 400)
	}
	b.put(t, "dynamic", list{wid, []string{}, []int64{}}).null(t)
	b.put(t, "dynamic", list{wid, append(two, unknown.digest), []int64{0, 100, 150}}).refused(t, 400, "no such chunk "+unknown.digest)
	b.put(t, "dynamic", list{wid, two[:1], []int64{150}}).null(t) // the first two stayed
	b.do(t, "PUT", "/dynamic_index?"+url.Values{"wid": {strconv.Itoa(wid)}, "digest-list": two, "offset-list": {"250", "350"}}.Encode(), nil).null(t)
	digests := []string{x.digest, y.digest, x.digest, x.digest, y.digest}
	ends := []uint64{100, 150, 250, 350, 400}
	b.end(t, "dynamic", wid, 5, 400, dynamicSum(t, digests, ends)).null(t)
}

// Appending to a fixed index: any order, but aligned and inside.
func TestFixedAppend(t *testing.T) {
	t.Parallel()
	s := newGroup("vm")
	b := server.backup(t, server.alice, s)
	size := int64(3*fixedSize + 500)
	wid := b.index(t, "disk.img.fidx", "size", fmt.Sprint(size))
	zero, one, last := newZstd(make([]byte, fixedSize)), newZstd(repeat(1, fixedSize)), newChunk(noise(4, 500))
	for _, c := range []chunk{zero, one, last} {
		b.chunk(t, "fixed", wid, c)
	}
	for name, l := range map[string]list{
		"not aligned":          {wid, []string{zero.digest}, []int64{1}},
		"behind the end":       {wid, []string{zero.digest}, []int64{4 * fixedSize}},
		"over the end":         {wid, []string{zero.digest}, []int64{3 * fixedSize}},
		"far away":             {wid, []string{zero.digest}, []int64{1 << 62}},
		"overflow":             {wid, []string{zero.digest}, []int64{1<<63 - fixedSize}},
		"negative":             {wid, []string{zero.digest}, []int64{-fixedSize}},
		"short in the middle":  {wid, []string{last.digest}, []int64{fixedSize}},
		"short, aligned later": {wid, []string{last.digest}, []int64{3*fixedSize + 500}},
	} {
		b.put(t, "fixed", l).refused(t, 400)
		if t.Failed() {
			t.Logf("%s", name)
		}
	}
	b.put(t, "fixed", list{wid, []string{last.digest, one.digest}, []int64{3 * fixedSize, 0}}).null(t)
	b.put(t, "fixed", list{wid, []string{zero.digest, one.digest}, []int64{2 * fixedSize, fixedSize}}).null(t)
	digests := []string{one.digest, one.digest, zero.digest, last.digest}
	sum := fixedSum(t, digests)
	b.end(t, "fixed", wid, 4, size, sum).null(t)
	b.commit(t, entry{"disk.img.fidx", "none", size, sum})

	// Overwriting counts every time, and reuse lets a writer close with it.
	b = server.backup(t, server.alice, s.later(1))
	wid = b.index(t, "disk.img.fidx", "size", fmt.Sprint(size), "reuse-csum", sum)
	b.chunk(t, "fixed", wid, zero)
	b.chunk(t, "fixed", wid, one)
	for _, d := range []string{zero.digest, one.digest, zero.digest} {
		b.put(t, "fixed", list{wid, []string{d}, []int64{0}}).null(t)
	}
	digests[0] = zero.digest
	sum = fixedSum(t, digests)
	b.end(t, "fixed", wid, 3, 3*fixedSize, sum).null(t)
	b.commit(t, entry{"disk.img.fidx", "none", size, sum})
	r := server.reader(t, server.alice, s.later(1))
	checkFixed(t, r.do(t, "GET", "/download", nil, "file-name", "disk.img.fidx").want(t, 200).body, size, digests)
}

// repeat is n times the same byte.
func repeat(b byte, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = b
	}
	return data
}

// An image of unknown size grows until it is closed.
func TestFixedWithoutSize(t *testing.T) {
	t.Parallel()
	s := newGroup("vm")
	b := server.backup(t, server.alice, s)
	wid := b.index(t, "pipe.img.fidx")
	zero, last := newZstd(make([]byte, fixedSize)), newChunk(noise(5, 500))
	b.chunk(t, "fixed", wid, zero)
	b.chunk(t, "fixed", wid, last)
	b.put(t, "fixed", list{wid, []string{zero.digest, zero.digest}, []int64{0, fixedSize}}).null(t)
	b.put(t, "fixed", list{wid, []string{last.digest}, []int64{2 * fixedSize}}).null(t)
	b.put(t, "fixed", list{wid, []string{zero.digest}, []int64{3 * fixedSize}}).refused(t, 400)
	digests := []string{zero.digest, zero.digest, last.digest}
	b.end(t, "fixed", wid, 3, 2*fixedSize+500, fixedSum(t, digests)).null(t)
	b.commit(t, entry{"pipe.img.fidx", "none", 2*fixedSize + 500, fixedSum(t, digests)})
	r := server.reader(t, server.alice, s)
	checkFixed(t, r.do(t, "GET", "/download", nil, "file-name", "pipe.img.fidx").want(t, 200).body, 2*fixedSize+500, digests)
}

// Closing an index, section 2.8: a refusal drops the writer, not the session.
func TestClose(t *testing.T) {
	t.Parallel()
	s := newGroup("vm")
	b := server.backup(t, server.alice, s)
	full, last := newZstd(repeat(2, fixedSize)), newChunk(noise(6, 70))
	good := map[string][]string{"dynamic": {full.digest, last.digest}, "fixed": {full.digest, last.digest}}
	size := int64(fixedSize + 70)
	sums := map[string]string{"fixed": fixedSum(t, good["fixed"]), "dynamic": dynamicSum(t, good["dynamic"], []uint64{fixedSize, uint64(size)})}
	for name, c := range map[string]struct {
		count int
		size  int64
		sum   func(side string) string
	}{
		"count too small": {1, size, nil}, "count too large": {3, size, nil}, "count 0": {0, size, nil},
		"size too small": {2, size - 1, nil}, "size too large": {2, size + 1, nil}, "size 0": {2, 0, nil},
		"sum of the other kind": {2, size, func(side string) string { return sums[map[string]string{"fixed": "dynamic", "dynamic": "fixed"}[side]] }},
		"sum of nothing":        {2, size, func(string) string { return digestOf(nil) }},
		"no sum":                {2, size, func(string) string { return "" }},
	} {
		for _, side := range []string{"fixed", "dynamic"} {
			t.Run(name+" "+side, func(t *testing.T) {
				wid := b.filled(t, side, size, full, last)
				sum := sums[side]
				if c.sum != nil {
					sum = c.sum(side)
				}
				b.end(t, side, wid, c.count, c.size, sum).refused(t, 400)
				// What the schema of 2.3 refuses never gets as far as the
				// checks of 2.8: the writer stays, and a server may refuse a
				// second one of the same name as long as it does (2.5).
				if sum == "" || side == "dynamic" && (c.count == 0 || c.size == 0) {
					b.end(t, side, wid, 2, size, sums[side]).null(t)
				} else {
					b.end(t, side, wid, 2, size, sums[side]).refused(t, 400, "not registered")
				}
			})
		}
	}
	missing := b.index(t, "part.img.fidx", "size", fmt.Sprint(size))
	b.put(t, "fixed", list{missing, []string{full.digest}, []int64{0}}).null(t)
	b.end(t, "fixed", missing, 1, size, sums["fixed"]).refused(t, 400)

	var files []entry
	for _, side := range []string{"fixed", "dynamic"} {
		wid := b.filled(t, side, size, full, last)
		b.end(t, map[string]string{"fixed": "dynamic", "dynamic": "fixed"}[side], wid, 2, size, sums[side]).refused(t, 400)
		if a := b.end(t, side, wid, 2, size, sums[side]); a.status != 200 {
			t.Fatalf("a writer after a close of the other kind: %s", a)
		}
		b.end(t, side, wid, 2, size, sums[side]).refused(t, 400, "not registered")
		b.put(t, side, list{wid, good[side][:1], []int64{0}}).refused(t, 400, "not registered")
		honest(last).send(t, b, side, wid).refused(t, 400, "not registered")
		files = append(files, entry{b.nameOf(side), "none", size, sums[side]})
	}
	b.commit(t, files...)
	r := server.reader(t, server.alice, s)
	checkFixed(t, r.do(t, "GET", "/download", nil, "file-name", files[0].Filename).want(t, 200).body, size, good["fixed"])
}

func (s *session) nameOf(side string) string {
	return map[string]string{"fixed": "disk.img.fidx", "dynamic": "root.pxar.didx"}[side]
}

// filled creates an index and appends two chunks.
func (s *session) filled(t testing.TB, side string, size int64, first, last chunk) int {
	t.Helper()
	var more []string
	if side == "fixed" {
		more = []string{"size", fmt.Sprint(size)}
	}
	wid := s.index(t, s.nameOf(side), more...)
	s.chunk(t, side, wid, first)
	s.chunk(t, side, wid, last)
	s.put(t, side, list{wid, []string{first.digest, last.digest}, []int64{0, int64(len(first.plain))}}).null(t)
	return wid
}

// Reusing the index of the previous snapshot, section 2.5.
func TestReuse(t *testing.T) {
	t.Parallel()
	s := newGroup("vm")
	b := server.backup(t, server.alice, s)
	zero, last := newZstd(make([]byte, fixedSize)), newChunk(noise(7, 900))
	disk := b.archive(t, "disk.img.fidx", zero, last)
	dyn := b.archive(t, "root.pxar.didx", small(3)...)
	b.commit(t, disk, dyn)

	b = server.backup(t, server.alice, s.later(1))
	for name, c := range map[string]struct{ archive, size, sum string }{
		"other sum":            {"disk.img.fidx", fmt.Sprint(disk.Size), digestOf(nil)},
		"other archive":        {"disk2.img.fidx", fmt.Sprint(disk.Size), disk.Sum},
		"fewer chunks":         {"disk.img.fidx", "900", disk.Sum},
		"more chunks":          {"disk.img.fidx", fmt.Sprint(2*fixedSize + 1), disk.Sum},
		"same count, not size": {"disk.img.fidx", fmt.Sprint(disk.Size + 1), disk.Sum},
	} {
		b.do(t, "POST", "/fixed_index", nil, "archive-name", c.archive, "size", c.size, "reuse-csum", c.sum).refused(t, 400)
		if t.Failed() {
			t.Logf("%s", name)
		}
	}
	wid := b.index(t, "disk.img.fidx", "size", fmt.Sprint(disk.Size), "reuse-csum", disk.Sum)
	b.end(t, "fixed", wid, 0, 0, disk.Sum).null(t) // nothing was dirty
	b.commit(t, disk)
	r := server.reader(t, server.alice, s.later(1))
	checkFixed(t, r.do(t, "GET", "/download", nil, "file-name", "disk.img.fidx").want(t, 200).body, disk.Size, []string{zero.digest, last.digest})
	r.do(t, "GET", "/chunk", nil, "digest", last.digest).want(t, 200)

	b = server.backup(t, server.alice, s.later(2))
	wid = b.index(t, "disk.img.fidx", "size", fmt.Sprint(disk.Size), "reuse-csum", disk.Sum)
	b.end(t, "fixed", wid, 1, fixedSize, disk.Sum).refused(t, 400) // nothing was appended
}
