#!/bin/sh
# Runs tests and ends with the slowest of them and one line "N passed, N failed,
# N skipped".
#
#   tests/run.sh test    all but those of the next line; what has the code of the
#                        product in it runs with the race detector
#   tests/run.sh faults  what breaks disks, programs and servers again and again
#   tests/run.sh check   what the changes since main touch, the short way
#
# The two first run every test there is. What is long in a package (harness.Long) is
# left out by the last, which says so.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

# Packages are begun in the order in which they are named: what takes long comes
# first, so that nothing long is left alone at the end.
#
# These drive a program that they build. The race detector would look at the test
# alone, and make its images and its comparisons ten times slower.
faults='./tests/faults ./tests/faultlab/kill ./tests/abuse ./tests/faultlab/schedule ./tests/faultlab/blocks
	./tests/faultlab/ioerr ./tests/faultlab/power ./tests/faultlab/rot ./tests/faultlab/limits ./tests/faultlab/clock ./tests/faultlab/museum'
programs='./tests/script ./tests/places ./tests/interop'
# These have the product's code in them.
long='./datastore/server ./chunkstore/pack ./client/backup ./datastore ./client ./cmd/holdfast'

# others are all packages with tests besides.
others() {
	go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | sed "s,^$(go list -m),.," >"$work/all"
	printf '%s\n' $faults $programs $long | grep -vxFf - "$work/all"
}

# run runs go test on packages and notes its status. -count=1: the tests of the
# built programs do not import them, so that go would repeat their last result
# whatever has changed. vet has looked at everything before.
#
# Many packages wait, for disks and clocks and other processes, so that there is one
# more at a time than there are processors.
run() {
	go test -count=1 -vet=off -p "$(($(getconf _NPROCESSORS_ONLN) + 1))" -timeout 30m -json "$@" 2>&1 ||
		echo "$*" >>"$work/failed"
}

# program builds the program that many packages drive, once.
program() {
	HOLDFAST_TEST_PROGRAM=$work/program/holdfast
	export HOLDFAST_TEST_PROGRAM
	CGO_ENABLED=0 go build -buildvcs=false -o "$HOLDFAST_TEST_PROGRAM" ./cmd/holdfast
}

# needs looks for what the tests call.
needs() {
	if ! sh tests/needs.sh && [ "$(id -u)" = 0 ]; then
		exit 1
	fi
	if [ "$(id -u)" != 0 ]; then
		HOLDFAST_TEST_NOROOT=1
		export HOLDFAST_TEST_NOROOT
		echo "not root: tests that need loop devices and mounts will say that they did not run" >&2
	fi
}

# base is the commit from which changes count: where this branch has left main, or
# the one before the last on main itself.
base() {
	for main in main origin/main; do
		since=$(git merge-base HEAD "$main" 2>/dev/null) || continue
		if [ "$since" = "$(git rev-parse HEAD)" ] && [ -z "$(git status --porcelain)" ]; then
			since=$(git rev-parse HEAD^)
		fi
		echo "$since"
		return
	done
	git rev-parse HEAD
}

# touched lists the packages whose files, tests and test data among them, have changed
# since a commit.
touched() {
	{ git diff --name-only "$1"; git ls-files --others --exclude-standard; } | while read -r file; do
		dir=$(dirname "$file")
		until [ "$dir" = . ] || ls "$dir"/*.go >/dev/null 2>&1; do dir=$(dirname "$dir"); done
		[ "$dir" = . ] || echo "./$dir"
	done | sort -u
}

# importers lists the packages that import one of those in a file, their tests too.
importers() {
	go list -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}
{{end}}{{range .TestImports}}{{$p}} {{.}}
{{end}}{{range .XTestImports}}{{$p}} {{.}}
{{end}}' ./... | sed "s,\<$(go list -m)/,./,g" | awk 'NR == FNR { on[$1]; next } $2 in on { print $1 }' "$1" -
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
CGO_ENABLED=0 go build -buildvcs=false -o "$work/slowest" ./tests/slowest

# Without the C library where there is no race detector, which needs it: so is the
# program, and all of both is compiled once.
#
# shellcheck disable=SC2046,SC2086 # lists of words
case ${1:-test} in
test)
	needs
	program
	{
		run -short=false -race $long $(others)
		CGO_ENABLED=0 run -short=false $programs
	} | "$work/slowest"
	;;
faults)
	needs
	program
	CGO_ENABLED=0 run -short=false $faults | "$work/slowest"
	;;
check)
	since=$(base)
	touched "$since" >"$work/touched"
	importers "$work/touched" | sort -u - "$work/touched" >"$work/near"
	# These build programs with faults in them first, a minute for each of them.
	slow=$(grep '^./tests/faultlab/' "$work/near" || true)
	grep -v '^./tests/faultlab/' "$work/near" >"$work/now" || true
	echo ./tests/arch >>"$work/now"
	if grep -qv '^./tests/' "$work/near"; then # it is in the program
		program
		echo ./tests/script >>"$work/now"
	fi
	sort -u -o "$work/now" "$work/now"
	echo "checks, since $(git log -1 --format='%h (%s)' "$since"):" $(cat "$work/now")
	go build ./...
	go vet $(cat "$work/now") $slow
	[ -z "$slow" ] || echo "touched, and too slow for a check:" $slow
	run -short $(cat "$work/now") | "$work/slowest"
	;;
*) echo "usage: tests/run.sh [test|faults|check]" >&2; exit 2 ;;
esac

# Both must agree that the run is good: the summary fails for a failed test, a
# package that does not build and a run without tests, and the status of the
# run itself tells when it was cut off.
[ ! -e "$work/failed" ]
