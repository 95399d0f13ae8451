// Package server is the network side of a datastore: the REST methods of the
// protocol specification and its two HTTP/2 sessions, over TLS, over a unix
// socket and in process.
//
// It decides nothing. A request is decoded against a table of methods, the
// rooms access and datastore are asked, one function is called, and what it
// returns is encoded. The table is in the files named after what their methods
// are about; rest.go walks it. The rooms below have what needs no server: front the
// way in, rest the router, parameters and errors, body what requests and answers are kept
// in, budget and ledger who pays for what, quota what counts against quotas, known what a
// session may refer to, meter the figures.
//
// What it promises: every size is bounded before memory is taken for it, every
// connection has a deadline until it is upgraded, names are checked against the
// grammar before they reach a datastore, a list is never null, and nothing that
// a caller may not see changes the answer it gets. A refused login is answered
// late, but only a bounded number of answers waits at a time.
package server
