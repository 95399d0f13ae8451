// The functions of label.go that are declared without a body are those of the
// runtime; the compiler allows that in a package that has an assembly file.
