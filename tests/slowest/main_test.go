package main

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const pass = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":1.5}
{"Action":"output","Package":"p","Output":"ok  \tp\t1.5s\n"}
{"Action":"pass","Package":"p","Elapsed":1.6}
`
	const fail = `{"Action":"output","Package":"q","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"q","Test":"TestB","Output":"    b_test.go:7: got 1, want 2\n"}
{"Action":"fail","Package":"q","Test":"TestB","Elapsed":0.1}
{"Action":"fail","Package":"q","Elapsed":0.2}
`
	const skip = `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:9: needs root\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"--- SKIP: TestC (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestC","Elapsed":0}
`
	const loud = `{"Action":"output","Package":"p","Test":"TestE","Output":"    e_test.go:5: NOT TESTED: devices\n"}
{"Action":"pass","Package":"p","Test":"TestE","Elapsed":0}
`
	const build = `{"ImportPath":"r","Action":"build-output","Output":"r.go:3: undefined: x\n"}
{"ImportPath":"r","Action":"build-fail"}
{"Action":"output","Package":"r","Output":"FAIL\tr [build failed]\n"}
{"Action":"fail","Package":"r","Elapsed":0,"FailedBuild":"r"}
`
	const panicked = `{"Action":"run","Package":"s","Test":"TestD"}
{"Action":"output","Package":"s","Test":"TestD","Output":"panic: boom\n"}
{"Action":"output","Package":"s","Output":"FAIL\ts\t0.1s\n"}
{"Action":"fail","Package":"s","Elapsed":0.1}
`
	tests := []struct {
		name, in string
		good     bool
		want     []string
	}{
		{"nothing", "", false, []string{"no test ran", "0 passed, 0 failed, 0 skipped"}},
		{"only packages without tests", `{"Action":"skip","Package":"p"}` + "\n", false, []string{"no test ran"}},
		{"only skipped", skip, false, []string{"no test ran", "did not run: p TestC: c_test.go:9: needs root", "0 passed, 0 failed, 1 skipped"}},
		{"pass", pass, true, []string{"ok       1.60 s  p", "slowest tests:\n     1.50 s  p TestA", "1 passed, 0 failed, 0 skipped"}},
		{"not tested", pass + loud, true, []string{"did not run: p TestE: e_test.go:5: NOT TESTED: devices", "1 passed, 0 failed, 1 skipped"}},
		{"pass and skip", skip + pass, true, []string{"1 passed, 0 failed, 1 skipped"}},
		{"fail", pass + fail, false, []string{"b_test.go:7: got 1, want 2", "failed: q TestB", "1 passed, 1 failed, 0 skipped"}},
		{"build", pass + build, false, []string{"r.go:3: undefined: x", "failed: r as a whole", "1 passed, 1 failed, 0 skipped"}},
		{"panic", pass + panicked, false, []string{"panic: boom", "did not end: s TestD", "1 passed, 1 failed, 0 skipped"}},
		{"text passes through", "go: cannot find module\n" + pass, true, []string{"go: cannot find module\n"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			s := newSummary(&out)
			if err := s.read(strings.NewReader(test.in)); err != nil {
				t.Fatal(err)
			}
			if got := s.finish(); got != test.good {
				t.Errorf("good = %v, want %v", got, test.good)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the output has no %q:\n%s", want, out.String())
				}
			}
		})
	}
}
