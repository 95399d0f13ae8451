#!/bin/sh
# Runs every fuzz target of the module, one after the other, for the time
# given (default 10s).
set -eu
time=${1:-10s}
cd "$(dirname "$0")/.."
count=0
said=$(mktemp)
trap 'rm -f "$said"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# run fuzzes one target. The end of the time in the midst of an input is no
# finding, although go test calls it a failure.
run() {
	if go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" "$1" >"$said" 2>&1; then
		tail -n 1 "$said"
		return
	fi
	if grep -q 'context deadline exceeded' "$said" && ! grep -q 'Failing input\|seed corpus\|panic' "$said"; then
		echo "ok  	$1	until the time was over, in the midst of an input"
		return
	fi
	cat "$said"
	return 1
}

for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		printf '%s\n' "fuzz $package $target $time"
		run "$package" "$target"
		count=$((count + 1))
	done
done
[ "$count" -gt 0 ] || { echo "fuzz: no fuzz target was found" >&2; exit 1; }
printf '%s\n' "$count fuzz targets ran for $time each"
