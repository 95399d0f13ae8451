package wire

import (
	"errors"
	"strings"
	"testing"
)

// The example of section 5.1 of the protocol specification.
const upidExample = `UPID:pbs1:000004D2:0001A2B3:0000000F:6638B280:backup:tank\x3avm-100:root@pam!pve:`

func TestUPID(t *testing.T) {
	want := UPID{Node: "pbs1", PID: 1234, PStart: 107187, TaskID: 15, Start: 1714991744, Type: "backup", ID: "tank:vm/100", Auth: "root@pam!pve"}
	got, err := ParseUPID(upidExample)
	if err != nil || got != want || got.String() != upidExample {
		t.Errorf("ParseUPID = %+v, %v; text %s", got, err, got)
	}
	for _, id := range []string{"", "tank", ".hidden", "tank:ns/a:vm/100/6638B280", "a b\x00\xff"} {
		u := want
		u.ID = id
		if got, err := ParseUPID(u.String()); err != nil || got != u {
			t.Errorf("worker id %q came back as %q, %v", id, got.ID, err)
		}
	}
}

func TestParseUPIDRefuses(t *testing.T) {
	for _, change := range [][2]string{
		{"UPID:", "upid:"}, {"pve:", "pve"}, {"pbs1", ""}, {"pbs1", "pb/s"}, {"pbs1", "../x"}, {"000004D2", "4D2"}, {"000004D2", "000004d2"},
		{"6638B280", "16638B280"}, {"backup", "back/up"}, {`\x3a`, `\x3A`}, {`\x3a`, `\x3`}, {`\x3a`, "/"}, {"root@pam", "root"}, {":tank", "::tank"},
	} {
		s := strings.Replace(upidExample, change[0], change[1], 1)
		if u, err := ParseUPID(s); !errors.Is(err, ErrName) {
			t.Errorf("ParseUPID(%q) = %+v, %v; want ErrName", s, u, err)
		}
	}
}

func FuzzParseUPID(f *testing.F) {
	f.Add(upidExample)
	f.Add("UPID:localhost:00000001:00000001:00000001:00000001:reader::a@pbs:")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUPID(s)
		if err != nil {
			return
		}
		if again, err := ParseUPID(u.String()); err != nil || again != u {
			t.Fatalf("%q became %q: %v", s, u, err)
		}
	})
}
