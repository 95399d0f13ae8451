package crypto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"strings"
	"unicode"

	"rsc.io/qr"
)

// The lines around the key on paper (section 5.3 of the formats specification).
const (
	paperBegin = "-----BEGIN PROXMOX BACKUP KEY-----"
	paperEnd   = "-----END PROXMOX BACKUP KEY-----"
)

// Limits in bytes.
const (
	paperSizeMax   = 1 << 20
	subjectSizeMax = 1 << 10
)

// quietZone is the light margin that a QR code needs, in modules.
const quietZone = 4

// PaperKeyText returns a key file as text to be printed: subject (which may be
// ""), the indented file between two marker lines, and a QR code of the same
// drawn with block characters, dark on light. Whoever reads it has the key,
// unless the file has a passphrase.
func PaperKeyText(f *KeyFile, subject string) (string, error) {
	text, code, err := paperKey(f, subject)
	if err != nil {
		return "", err
	}
	return text + "\n" + qrText(code), nil
}

// PaperKeyHTML is PaperKeyText as an HTML page with the QR code as a drawing.
func PaperKeyHTML(f *KeyFile, subject string) (string, error) {
	text, code, err := paperKey(f, subject)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Backup key</title>\n</head>\n<body>\n<pre>\n")
	b.WriteString(html.EscapeString(text))
	b.WriteString("</pre>\n")
	b.WriteString(qrSVG(code))
	b.WriteString("</body>\n</html>\n")
	return b.String(), nil
}

// paperKey returns the part for humans and the QR code.
func paperKey(f *KeyFile, subject string) (string, *qr.Code, error) {
	if len(subject) > subjectSizeMax || strings.ContainsFunc(subject, unicode.IsControl) {
		return "", nil, fmt.Errorf("make a paper key: the subject is not a line of at most %d bytes: %w", subjectSizeMax, ErrFormat)
	}
	compact, err := f.Encode()
	if err != nil {
		return "", nil, fmt.Errorf("make a paper key: %w", err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, compact, "", "  "); err != nil {
		return "", nil, fmt.Errorf("make a paper key: %w", err)
	}
	code, err := qr.Encode(indented.String(), qr.M)
	if err != nil {
		return "", nil, fmt.Errorf("make a paper key: draw the QR code: %w", err)
	}
	var b strings.Builder
	if subject != "" {
		fmt.Fprintf(&b, "Subject: %s\n\n", subject)
	}
	fmt.Fprintf(&b, "%s\n%s\n%s\n", paperBegin, indented.String(), paperEnd)
	return b.String(), code, nil
}

// qrText draws two rows of modules per line.
func qrText(code *qr.Code) string {
	var b strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		for x := -quietZone; x < code.Size+quietZone; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// qrSVG draws one rectangle per dark run of modules.
func qrSVG(code *qr.Code) string {
	var b strings.Builder
	size := code.Size + 2*quietZone
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"15cm\" height=\"15cm\" viewBox=\"0 0 %d %d\" shape-rendering=\"crispEdges\">\n", size, size)
	fmt.Fprintf(&b, "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n<path fill=\"#000\" d=\"", size, size)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			run := 0
			for code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+quietZone, y+quietZone, run, run)
				x += run
			}
		}
	}
	b.WriteString("\"/>\n</svg>\n")
	return b.String()
}

// ParsePaperKey reads what PaperKeyText or PaperKeyHTML have written, whatever
// stands around the markers, or what a scanner reads from the QR code. It takes
// at most 1 MiB. Errors wrap ErrFormat; byte offsets in them count from the
// beginning of the JSON text.
func ParsePaperKey(text []byte) (*KeyFile, error) {
	if len(text) > paperSizeMax {
		return nil, fmt.Errorf("read a paper key: %d bytes, at most %d are allowed: %w", len(text), paperSizeMax, ErrFormat)
	}
	part, err := cutPaperKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("read a paper key: %w: %w", err, ErrFormat)
	}
	f, err := DecodeKeyFile([]byte(part))
	if err != nil {
		return nil, fmt.Errorf("read a paper key: %w", err)
	}
	return f, nil
}

func cutPaperKey(text string) (string, error) {
	if bare := strings.TrimSpace(text); strings.HasPrefix(bare, "{") {
		return bare, nil
	}
	_, rest, ok := strings.Cut(text, paperBegin)
	if !ok {
		return "", errors.New("there is no line " + paperBegin)
	}
	part, _, ok := strings.Cut(rest, paperEnd)
	if !ok {
		return "", errors.New("there is no line " + paperEnd)
	}
	part = strings.TrimSpace(part)
	if !json.Valid([]byte(part)) {
		// In a web page quotes are written as entities.
		part = html.UnescapeString(part)
	}
	return part, nil
}
