package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that the pages about security name, by itself or as a script, is
// there: a page must not lean on a test that somebody has removed or renamed.
func TestPagesNameTestsThatExist(t *testing.T) {
	const root = "../.."
	var sources strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		sources.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	all := sources.String()
	name, script := regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`"), regexp.MustCompile("`(tests/[a-z/]+\\.txtar)`")
	for _, page := range []string{"threat-model.md", "rights.md", "server.md"} {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(root, "docs", page))
			if err != nil {
				t.Fatal(err)
			}
			named := name.FindAllStringSubmatch(string(text), -1)
			if len(named) == 0 {
				t.Error("it names no test at all")
			}
			for _, m := range named {
				if !strings.Contains(all, "\nfunc "+m[1]+"(t *testing.T)") {
					t.Errorf("there is no test %s", m[1])
				}
			}
			for _, m := range script.FindAllStringSubmatch(string(text), -1) {
				if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
					t.Errorf("there is no script %s: %v", m[1], err)
				}
			}
		})
	}
}
