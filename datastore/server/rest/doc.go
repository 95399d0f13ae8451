// Package rest is what every method of the server is made with: the table of methods and
// the tree that finds one, the parameters of a request and the checks of their values,
// and the errors that become answers.
//
// What it promises: a value that a method gets is of the kind and the grammar that its
// row says, a request says nothing that its row does not name, sizes are bounded before
// memory is taken, and every error has a status.
package rest
