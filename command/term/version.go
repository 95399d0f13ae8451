package term

// Version is that of the program; the revision comes from the build.
const Version = "0.1.0-dev"
