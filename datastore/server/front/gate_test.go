package front

import (
	"testing"
	"time"
)

func TestGate(t *testing.T) {
	var g gate
	if !g.enter() {
		t.Fatal("the gate is shut")
	}
	shut := make(chan struct{})
	go func() {
		g.shut(time.Hour, func() {})
		close(shut)
	}()
	for g.enter() { // until it has begun to shut
		g.inside.Done()
		time.Sleep(time.Millisecond)
	}
	select {
	case <-shut:
		t.Error("it did not wait for who is inside")
	default:
	}
	g.inside.Done()
	<-shut
}
