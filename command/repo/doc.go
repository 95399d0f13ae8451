// Package repo gets from what a command line names to something that can be worked
// on: from the name of a repository to its open ports, on this machine or on a
// server, and from a data directory to a conversation with the server that keeps
// its data there, running or not. Whom to trust, where tickets are kept and what
// the errors of servers mean is decided here, once for all commands; the flags that
// this needs are here as well.
//
// It knows no command.
package repo
