#!/bin/sh
# Runs every fuzz target of the module for the time given (default 10s), as many
# beside each other as there are processors.
set -eu
time=${1:-10s}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cache=$(go env GOCACHE)/fuzz

# One binary a package: most of the time would go into linking one a target. A
# line of targets is "binary directory package target".
go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do
	found=$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go 2>/dev/null || true)
	[ -n "$found" ] || continue
	bin=$work/$(printf '%s' "$package" | tr / -)
	go test -c -fuzz . -o "$bin" "$package"
	for target in $found; do printf '%s\n' "$bin $dir $package $target"; done
done >"$work/targets"
[ -s "$work/targets" ] || { echo "fuzz: no fuzz target was found" >&2; exit 1; }

# The end of the time in the midst of an input is no finding, although it is
# called a failure.
# shellcheck disable=SC2016 # the shells of xargs expand it
one='
cd "$4"
said=$3-$6.log
if "$3" -test.run "^\$" -test.fuzz "^$6\$" -test.fuzztime "$1" -test.parallel 1 -test.fuzzcachedir "$2/$5" >"$said" 2>&1; then
	printf "ok  \t%s %s, %s\n" "$5" "$6" "$1"
elif grep -q "context deadline exceeded" "$said" && ! grep -q "Failing input\|seed corpus\|panic" "$said"; then
	printf "ok  \t%s %s, until the time was over, in the midst of an input\n" "$5" "$6"
else
	printf "FAIL\t%s %s\n" "$5" "$6"
	cat "$said"
	exit 1
fi'
xargs -P "$(getconf _NPROCESSORS_ONLN)" -L 1 sh -c "$one" sh "$time" "$cache" <"$work/targets"
printf '%s\n' "$(wc -l <"$work/targets") fuzz targets ran for $time each"
