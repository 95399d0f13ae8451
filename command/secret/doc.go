// Package secret is where passphrases, keys, tokens and settings come from: the
// environment with its files, descriptors, commands and credentials, the
// configuration directories, and the user at a terminal. A secret that is taken is
// told of by the name of its source, never by what it is; one that lies about for
// every user of the machine is warned of.
//
// It knows no repository and no server.
package secret
