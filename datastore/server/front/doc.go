// Package front is the front door of a server: listeners, TLS, the places that
// connections take, the heads of requests, and the way from HTTP/1.1 to the HTTP/2 of a
// session.
//
// What it promises: nobody who has not said who he is keeps others out, every connection
// has a deadline until a session has been authorised on it, a head that no other server
// would take is made good before it is read, and a peer that has gone is noticed.
package front
