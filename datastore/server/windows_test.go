package server

import "testing"

func TestWindows(t *testing.T) {
	var w windows
	var all []func()
	total, before := 0, h2ConnWindow
	const sessions = 200
	for i := range sessions {
		size, give := w.take()
		if i == 0 && size != h2ConnWindow {
			t.Errorf("the first gets %d", size)
		}
		if size > before || size < windowMin {
			t.Errorf("number %d gets %d after %d", i, size, before)
		}
		total, before = total+size, size
		all = append(all, give)
	}
	if total > windowBudget+sessions*windowMin {
		t.Errorf("all have %d", total)
	}
	for _, give := range all {
		give()
		give() // counts once
	}
	if size, _ := w.take(); size != h2ConnWindow {
		t.Errorf("after all have gone the next gets %d", size)
	}
}
