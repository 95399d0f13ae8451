// Package meter is the figures of a server: what /metrics shows, and how full the disks
// of the datastores are.
//
// What it promises: no label is of a caller's choosing, and who may not audit is told of a
// disk so roughly, and the same for so long, that it tells him nothing of single chunks.
package meter
