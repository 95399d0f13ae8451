#!/bin/sh
# Runs every fuzz target of the module, one after the other, for the time
# given (default 10s).
set -eu
time=${1:-10s}
cd "$(dirname "$0")/.."
count=0
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		printf '%s\n' "fuzz $package $target $time"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package"
		count=$((count + 1))
	done
done
[ "$count" -gt 0 ] || { echo "fuzz: no fuzz target was found" >&2; exit 1; }
printf '%s\n' "$count fuzz targets ran for $time each"
