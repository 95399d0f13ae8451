package crypto_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"rsc.io/qr"

	"holdfast/crypto"
	"holdfast/tests/vectors"
)

type paperVector struct {
	From    string   `json:"from_key_file"`
	Lines   []string `json:"text_lines_without_qr"`
	Payload string   `json:"qr_payload_text"`
}

func paperVectors(tb testing.TB) (paperVector, *crypto.KeyFile) {
	tb.Helper()
	var v paperVector
	vectors.Section(tb, "paperkey", &v)
	for _, c := range keyFileVectors(tb) {
		if c.Name == v.From {
			f, err := crypto.DecodeKeyFile([]byte(c.Text))
			if err != nil {
				tb.Fatal(err)
			}
			return v, f
		}
	}
	tb.Fatalf("no key file %s", v.From)
	return v, nil
}

func TestVectorsPaperKey(t *testing.T) {
	v, f := paperVectors(t)
	want := strings.Join(v.Lines, "\n") + "\n"
	text, err := crypto.PaperKeyText(f, "")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, want+"\n") {
		t.Errorf("text is\n%s\nwant\n%s", text, want)
	}
	if text, err = crypto.PaperKeyText(f, "keys of <vm>"); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, "Subject: keys of <vm>\n\n"+want+"\n") {
		t.Errorf("text with subject is\n%s", text)
	}
	checkDrawing(t, text[strings.Index(text, want)+len(want)+1:], v.Payload)
}

// checkDrawing compares the drawn modules with those of the payload's code.
func checkDrawing(t *testing.T, drawing, payload string) {
	t.Helper()
	code, err := qr.Encode(payload, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	const margin = 4
	lines := strings.Split(strings.TrimSuffix(drawing, "\n"), "\n")
	if want := (code.Size + 2*margin + 1) / 2; len(lines) != want {
		t.Fatalf("%d lines, want %d", len(lines), want)
	}
	for i, line := range lines {
		cells := []rune(line)
		if len(cells) != code.Size+2*margin {
			t.Fatalf("line %d has %d cells", i, len(cells))
		}
		for j, r := range cells {
			x, y := j-margin, 2*i-margin
			if upper := r == '█' || r == '▀'; upper != code.Black(x, y) {
				t.Fatalf("module %d, %d is wrong", x, y)
			}
			if lower := r == '█' || r == '▄'; lower != code.Black(x, y+1) {
				t.Fatalf("module %d, %d is wrong", x, y+1)
			}
		}
	}
}

func TestPaperKeyHTML(t *testing.T) {
	_, f := paperVectors(t)
	page, err := crypto.PaperKeyHTML(f, `a<script>"b"`)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(page, "<script>") {
		t.Error("the subject is not escaped")
	}
	i := strings.Index(page, "<svg")
	if i < 0 {
		t.Fatal("no drawing")
	}
	dec := xml.NewDecoder(strings.NewReader(page[i:strings.Index(page, "</body>")]))
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the drawing is not well-formed: %v", err)
		}
	}
	checkSameFile(t, f, []byte(page))
}

func checkSameFile(t *testing.T, f *crypto.KeyFile, text []byte) {
	t.Helper()
	got, err := crypto.ParsePaperKey(text)
	if err != nil {
		t.Errorf("parse: %v\n%s", err, text)
		return
	}
	a, errA := got.Encode()
	b, errB := f.Encode()
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("another file: %v, %v\n got %s\nwant %s", errA, errB, a, b)
	}
}

func TestParsePaperKey(t *testing.T) {
	v, f := paperVectors(t)
	text, err := crypto.PaperKeyText(f, "subject")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		text,
		strings.ReplaceAll(text, "\n", "\r\n"),
		"notes before\n" + text + "and after",
		v.Payload,
		"\n  " + v.Payload + "\n",
	} {
		checkSameFile(t, f, []byte(s))
	}
	marker := v.Lines[0]
	for name, s := range map[string]string{
		"empty":        "",
		"no markers":   "what is this",
		"no end":       marker + "\n" + v.Payload,
		"nothing":      strings.Join([]string{marker, v.Lines[len(v.Lines)-1]}, "\n"),
		"cut":          marker + "\n" + v.Payload[:100] + "\n" + v.Lines[len(v.Lines)-1],
		"two in one":   v.Payload + v.Payload,
		"much too big": strings.Repeat(" ", 2<<20),
	} {
		if _, err := crypto.ParsePaperKey([]byte(s)); !errors.Is(err, crypto.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPaperKeyRefuses(t *testing.T) {
	_, f := paperVectors(t)
	for _, subject := range []string{"two\nlines", "\x1b[2J", strings.Repeat("x", 2000)} {
		if _, err := crypto.PaperKeyText(f, subject); !errors.Is(err, crypto.ErrFormat) {
			t.Errorf("subject %.10q: %v", subject, err)
		}
	}
	if _, err := crypto.PaperKeyHTML(&crypto.KeyFile{}, ""); !errors.Is(err, crypto.ErrFormat) {
		t.Errorf("empty file: %v", err)
	}
}

func FuzzParsePaperKey(f *testing.F) {
	v, k := paperVectors(f)
	f.Add([]byte(v.Payload))
	f.Add([]byte(strings.Join(v.Lines, "\n")))
	for _, draw := range []func(*crypto.KeyFile, string) (string, error){crypto.PaperKeyText, crypto.PaperKeyHTML} {
		s, err := draw(k, "s")
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := crypto.ParsePaperKey(text)
		if err != nil {
			if !errors.Is(err, crypto.ErrFormat) {
				t.Fatalf("error without ErrFormat: %v", err)
			}
			return
		}
		if _, err := crypto.PaperKeyText(k, ""); err != nil {
			t.Fatalf("print what was read: %v", err)
		}
	})
}
