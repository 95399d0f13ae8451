// Package budget is what callers may take from a server, each with the most of it
// that one of them gets: connections, requests, memory, files, places in line. It says
// how much there is; the room ledger keeps the accounts. docs/server.md has the table.
//
// What it promises: everything is bounded, for one caller and for all of them together,
// and a part of it is kept for administrators.
package budget
