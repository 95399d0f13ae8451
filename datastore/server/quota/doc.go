// Package quota keeps the book of what counts against the quotas of users, tokens and
// paths: what their snapshots count, what sessions under way take, and what interrupted
// ones have left.
//
// What it promises: whatever was sent counts, whether the store had it or not, until a
// collection has freed it, and across a restart. Bytes do not overflow.
package quota
