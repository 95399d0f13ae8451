// Package api is the one table of the protocol's methods: for each what it is asked with,
// who may ask, and what is answered. Server, client and commands share it.
//
// What it promises: nothing here does anything. A row names parameters with the grammar
// of each, the privileges that are needed and where, and the type of the answer; what the
// server binds to a row, and what a client asks for, are the same row.
package api
