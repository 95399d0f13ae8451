package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// linePort is where the line begins, behind the proxy that delays.
const linePort = "127.0.0.1:18009"

// line is a TCP relay with a rate in each direction that all its connections
// share. The proxy has rates, too, but gives each connection one of its own.
type line struct {
	to       string
	up, down *meter
}

// meter hands out time on the line.
type meter struct {
	rate float64 // bytes a second

	mu   sync.Mutex
	free time.Time // when what has been let through has left
}

// wait lets n bytes through. Up to burst it may be behind the clock, so that a
// late wakeup costs nothing.
func (m *meter) wait(n int) {
	const burst = 10 * time.Millisecond
	m.mu.Lock()
	now := time.Now()
	if oldest := now.Add(-burst); m.free.Before(oldest) {
		m.free = oldest
	}
	m.free = m.free.Add(time.Duration(float64(n) / m.rate * float64(time.Second)))
	until := m.free
	m.mu.Unlock()
	time.Sleep(time.Until(until))
}

// startLine relays from linePort to an address until ctx ends or stop is called.
func startLine(ctx context.Context, to string, rate float64) (stop func(), err error) {
	var conf net.ListenConfig
	ln, err := conf.Listen(ctx, "tcp", linePort)
	if err != nil {
		return nil, err
	}
	l := &line{to: to, up: &meter{rate: rate}, down: &meter{rate: rate}}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go l.relay(ctx, c)
		}
	}()
	return func() { ln.Close() }, nil
}

func (l *line) relay(ctx context.Context, near net.Conn) {
	defer near.Close()
	var d net.Dialer
	far, err := d.DialContext(ctx, "tcp", l.to)
	if err != nil {
		return
	}
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() { l.up.copy(far, near) })
	both.Go(func() { l.down.copy(near, far) })
	both.Wait()
}

// copy moves bytes until the end, and passes that on.
func (m *meter) copy(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		m.wait(n)
		_, failed := to.Write(buf[:n])
		if errors.Join(err, failed) != nil {
			break
		}
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, from)
}
