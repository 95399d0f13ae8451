#!/bin/sh
# Runs all tests with the race detector and ends with the slowest ones and one
# line "N passed, N failed, N skipped". Argument: the time limit of a package.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

if ! sh tests/needs.sh && [ "$(id -u)" = 0 ]; then
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	HOLDFAST_TEST_NOROOT=1
	export HOLDFAST_TEST_NOROOT
	echo "not root: tests that need loop devices and mounts will say that they did not run" >&2
fi

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
go build -buildvcs=false -o "$bin/slowest" ./tests/slowest

# -count=1: the tests of the built programs do not import them, so that go would
# repeat their last result whatever has changed.
#
# Both must agree that the run is good: the summary fails for a failed test, a
# package that does not build and a run without tests, and the status of the
# run itself tells when it was cut off.
#
# Packages are begun in the order in which they are named: what takes long comes
# first, so that nothing long is left alone at the end. Many of them wait, for disks
# and clocks and other processes, so that there is one more at a time than there are
# processors.
long='./tests/faults ./tests/faultlab/kill ./tests/faultlab/ioerr ./tests/abuse ./tests/faultlab/blocks
	./tests/faultlab/power ./tests/faultlab/limits ./tests/faultlab/rot ./tests/faultlab/schedule ./datastore/server
	./tests/script ./tests/places ./tests/interop ./cmd/holdfast ./chunkstore/pack'
{
	status=0
	# shellcheck disable=SC2086 # a list of words
	go test -race -count=1 -p "$(($(getconf _NPROCESSORS_ONLN) + 1))" -timeout "${1:-20m}" -json $long ./... 2>&1 || status=$?
	echo "$status" >"$bin/status"
} | "$bin/slowest"
[ "$(cat "$bin/status")" = 0 ]
