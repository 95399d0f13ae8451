package wiretest

import "testing"

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) Ports { m := &Memory{}; return Ports{m, m, m} })
}
