package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The link that is imitated.
const (
	linkDelay  = 75 * time.Millisecond // in each direction
	linkRate   = 125 * 1000 * 1000     // bytes a second in each direction
	noiseSize  = 2 * gib
	toxiproxy  = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0"
	proxyAdmin = "127.0.0.1:18474"
	proxyPort  = "127.0.0.1:18008"
	serverPort = "127.0.0.1:18007"
)

// place is where a repository is.
type place string

const (
	onPath     place = "a path"
	onLoopback place = "a server on loopback"
	onLink     place = "a server behind the link"
)

// serverRow is one step with the same image in one place.
type serverRow struct {
	image  string
	step   step
	place  place
	all    []sample // of the client
	server []sample // what the server took meanwhile; its memory is the peak so far
}

// serverBench measures what the network costs.
type serverBench struct {
	settings
	work, bin   string
	server      *exec.Cmd
	env         []string // how commands reach the server
	repository  map[place]string
	rows        []*serverRow
	linkMeasure float64 // bytes a second that a plain copy gets through the link
}

// compareServer measures everything and returns the document.
func compareServer(ctx context.Context, s settings) (string, error) {
	work, err := os.MkdirTemp(s.imageDir, "run-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	b := &serverBench{settings: s, work: work, bin: filepath.Join(work, "holdfast")}
	if err := b.build(ctx); err != nil {
		return "", err
	}
	if err := makeNoise(filepath.Join(s.imageDir, "noise.img")); err != nil {
		return "", err
	}
	stop, err := b.startLink(ctx)
	if err != nil {
		return "", err
	}
	defer stop()
	if b.linkMeasure, err = copyThroughLink(ctx); err != nil {
		return "", err
	}
	for round := range s.rounds {
		for _, image := range []string{"night1.img", "noise.img"} {
			if err := b.round(ctx, round, image); err != nil {
				return "", fmt.Errorf("%s: %w", image, err)
			}
		}
	}
	m, err := describeMachine(ctx, bench{settings: s, tools: tools(b.bin)[:1]})
	if err != nil {
		return "", err
	}
	return b.doc(m), nil
}

func (b *serverBench) build(ctx context.Context) error {
	if err := buildHoldfast(ctx, b.bin); err != nil {
		return err
	}
	install := exec.CommandContext(ctx, "go", "install", toxiproxy)
	install.Env = append(os.Environ(), "GOBIN="+b.work)
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("build the proxy that imitates the link: %w\n%s", err, out)
	}
	return nil
}

// makeNoise makes an image that neither compression nor deduplication makes
// smaller, so that all of it goes through the link.
func makeNoise(name string) error {
	if st, err := os.Stat(name); err == nil && st.Size() == noiseSize {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{'n'}), noiseSize)
	return errors.Join(err, f.Close())
}

// startLink starts the proxy, which delays in both directions, and the line
// behind it.
func (b *serverBench) startLink(ctx context.Context) (stop func(), err error) {
	hangUp, err := startLine(ctx, serverPort, linkRate)
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(proxyAdmin, ":")
	cmd := exec.CommandContext(ctx, filepath.Join(b.work, "server"), "-host", host, "-port", port)
	if err := cmd.Start(); err != nil {
		hangUp()
		return nil, err
	}
	stop = func() { cmd.Process.Kill(); cmd.Wait(); hangUp() }
	post := func(path, body string) error {
		resp, err := http.Post("http://"+proxyAdmin+path, "application/json", strings.NewReader(body))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode >= http.StatusMultipleChoices {
			return fmt.Errorf("%s: %s", path, resp.Status)
		}
		return nil
	}
	proxy := fmt.Sprintf(`{"name":"link","listen":%q,"upstream":%q,"enabled":true}`, proxyPort, linePort)
	for try := 0; ; try++ {
		if err = post("/proxies", proxy); err == nil || try > 50 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, stream := range []string{"upstream", "downstream"} {
		delay := fmt.Sprintf(`{"type":"latency","stream":%q,"attributes":{"latency":%d}}`, stream, linkDelay.Milliseconds())
		err = errors.Join(err, post("/proxies/link/toxics", delay))
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("set up the link: %w", err)
	}
	return stop, nil
}

// copyThroughLink measures what a plain download gets through the link.
func copyThroughLink(ctx context.Context) (float64, error) {
	const size = 512 * mib
	source := http.Server{Addr: serverPort, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.CopyN(w, rand.NewChaCha8([32]byte{}), size)
	})}
	defer source.Close()
	go source.ListenAndServe()
	var err error
	for range 50 {
		var req *http.Request
		if req, err = http.NewRequestWithContext(ctx, http.MethodGet, "http://"+proxyPort, nil); err != nil {
			return 0, err
		}
		began := time.Now()
		var resp *http.Response
		if resp, err = http.DefaultTransport.RoundTrip(req); err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return 0, err
		}
		return size / time.Since(began).Seconds(), nil
	}
	return 0, err
}

// round measures all steps of one image, the places taking turns within each
// step.
func (b *serverBench) round(ctx context.Context, round int, image string) error {
	dir := filepath.Join(b.work, "places")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	stop, err := b.startServer(ctx, dir)
	if err != nil {
		return err
	}
	defer stop()
	if err := b.prepare(ctx, dir); err != nil {
		return err
	}
	from := filepath.Join(b.imageDir, image)
	if err := errors.Join(warm(ctx, from), present(dir, from)); err != nil {
		return err
	}
	for _, st := range []step{stepFull, stepUnchanged, stepRestore} {
		for _, p := range inTurn(round) {
			if image != "noise.img" && p == onLink {
				continue
			}
			row := b.row(image, st, p)
			if err := b.measure(ctx, dir, row, from); err != nil {
				return err
			}
			s := row.all[len(row.all)-1]
			fmt.Printf("%s %d/%d  %-16s  %-24s  %6.2f s  cpu %6.2f s  %4d MiB\n", image, round+1, b.rounds, st, p,
				s.wall.Seconds(), s.cpu.Seconds(), s.rss/mib)
		}
	}
	return nil
}

// inTurn is the order of a round: who comes first in one comes last in the
// next, as memory that others have just used is cheaper to get.
func inTurn(round int) []place {
	order := []place{onPath, onLoopback, onLink}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// startServer runs a server with three datastores' worth of nothing.
func (b *serverBench) startServer(ctx context.Context, dir string) (stop func(), err error) {
	b.server = exec.CommandContext(ctx, b.bin, "serve", "--json", "--data", filepath.Join(dir, "data"), "--listen", serverPort)
	out, err := b.server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.server.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		b.server.Process.Signal(syscall.SIGTERM)
		b.server.Wait()
	}
	var said struct {
		Type        string `json:"message_type"`
		Secret      string `json:"secret"`
		Fingerprint string `json:"fingerprint"`
	}
	lines := bufio.NewScanner(out)
	for said.Type != "listening" && lines.Scan() {
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			stop()
			return nil, err
		}
	}
	if said.Type != "listening" {
		stop()
		return nil, errors.New("the server has not begun to listen")
	}
	b.env = []string{"HOLDFAST_PASSWORD=" + said.Secret, "HOLDFAST_FINGERPRINT=" + said.Fingerprint}
	return stop, nil
}

// prepare makes a repository for each place.
func (b *serverBench) prepare(ctx context.Context, dir string) error {
	b.repository = map[place]string{
		onPath:     "./repo",
		onLoopback: "root@pam!admin@" + serverPort + ":near",
		onLink:     "root@pam!admin@" + proxyPort + ":far",
	}
	for _, args := range [][]string{
		{"init", "./repo"},
		{"key", "create", "key.json", "--kdf", "none"},
		{"datastore", "create", "near", "--data", "./data"},
		{"datastore", "create", "far", "--data", "./data"},
	} {
		if _, err := measure(ctx, command{dir, b.env, append([]string{b.bin, "-q"}, args...)}); err != nil {
			return err
		}
	}
	return nil
}

func (b *serverBench) row(image string, st step, p place) *serverRow {
	i := slices.IndexFunc(b.rows, func(r *serverRow) bool { return r.image == image && r.step == st && r.place == p })
	if i < 0 {
		i = len(b.rows)
		b.rows = append(b.rows, &serverRow{image: image, step: st, place: p})
	}
	return b.rows[i]
}

// measure does one step in one place.
func (b *serverBench) measure(ctx context.Context, dir string, row *serverRow, image string) error {
	args := []string{b.bin, "-q", "--no-progress", "-r", b.repository[row.place]}
	if row.step == stepRestore {
		args = append(args, "restore", "--keyfile", "key.json", "vm/100/latest", "disk0.img", "out.img")
	} else {
		args = append(args, "backup", "--keyfile", "key.json", "--backup-type", "vm", "--backup-id", "100", "disk0.img:"+diskName)
	}
	before, err := processSample(b.server.Process.Pid)
	if err != nil {
		return err
	}
	s, err := measure(ctx, command{dir, b.env, args})
	if err != nil {
		return err
	}
	after, err := processSample(b.server.Process.Pid)
	if err != nil {
		return err
	}
	after.cpu -= before.cpu
	row.all, row.server = append(row.all, s), append(row.server, after)
	if row.step != stepRestore {
		return nil
	}
	out := filepath.Join(dir, "out.img")
	return errors.Join(compareFiles(ctx, image, out), os.Remove(out))
}

// processSample is what a running process has taken so far.
func processSample(pid int) (sample, error) {
	const perSecond = 100 // clock ticks, on every Linux
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return sample{}, err
	}
	// The second field is a name in brackets that may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const user, system = 11, 12
	var ticks int64
	for _, f := range []int{user, system} {
		n, err := strconv.ParseInt(fields[f], 10, 64)
		if err != nil {
			return sample{}, err
		}
		ticks += n
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return sample{}, err
	}
	kb, err := strconv.ParseInt(strings.TrimSuffix(firstField(string(status), "VmHWM"), " kB"), 10, 64)
	return sample{cpu: time.Duration(ticks) * time.Second / perSecond, rss: kb << 10}, err
}
