// Package abuse holds the checks of a server under load and under attack. They
// run the built binary and speak to it with a client of their own, which also
// says what no honest client would: they cut connections, drip bytes, send
// hostile names, poisoned chunks, bombs and noise. What is judged is that
// acknowledged snapshots stay whole, that others are not disturbed, that the
// memory of the server stays within its bound, and that nothing is written
// outside its data directory.
//
// The package has no code of its own besides its tests, which import no room of
// the module but tests/harness. HOLDFAST_ABUSE_SECONDS is how long the load lasts, 20 when it is
// not set; from 60 on the other checks are longer too.
package abuse
