#!/bin/sh
# Checks what the tests need from Debian. As root it installs what is missing;
# otherwise it names it. It prints nothing when all is there.
#
#   tests/needs.sh            what `make test` and `make test-faults` need
#   tests/needs.sh --demo     what `make demo` needs
#   tests/needs.sh --bench    what `make bench` needs besides
#
# Exit status: 0 all is there, 3 something is missing and nothing was done.
set -eu

# command=package, one pair for each command that is called
test_needs='qemu-img=qemu-utils qemu-io=qemu-utils gzip=gzip mke2fs=e2fsprogs debugfs=e2fsprogs mkfs.xfs=xfsprogs losetup=mount mount=mount
	openssl=openssl strace=strace prlimit=util-linux sfdisk=fdisk make=make gcc=gcc
	mkfs.btrfs=btrfs-progs bindfs=bindfs mkfs.exfat=exfatprogs mount.exfat-fuse=exfat-fuse lowntfs-3g=ntfs-3g fusermount3=fuse3'
case ${1:-} in
'') needs=$test_needs ;;
--demo) needs='mke2fs=e2fsprogs debugfs=e2fsprogs' ;;
--bench) needs="$test_needs restic=restic borg=borgbackup debootstrap=debootstrap flock=util-linux" ;;
*) echo "usage: tests/needs.sh [--demo|--bench]" >&2; exit 2 ;;
esac

# Debian keeps these in sbin, which is not on the path of a user.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing() {
	for need in $needs; do
		command -v "${need%%=*}" >/dev/null 2>&1 || printf '%s\n' "${need#*=}"
	done
	# The race detector links with the C library.
	case $needs in *gcc*) [ -e /usr/include/stdlib.h ] || echo libc6-dev ;; esac
}

packages=$(missing | sort -u)
[ -n "$packages" ] || exit 0
packages=$(printf '%s' "$packages" | tr '\n' ' ')

if [ "$(id -u)" != 0 ]; then
	printf '%s\n' "needed and not installed: $packages" \
		"  install with: apt-get install --no-install-recommends $packages" >&2
	exit 3
fi
if ! command -v apt-get >/dev/null 2>&1; then
	printf '%s\n' "needed and not installed: $packages (no apt-get here to install it with)" >&2
	exit 3
fi
printf '%s\n' "installing: $packages"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list of words
if ! { apt-get -q update && apt-get -q install -y --no-install-recommends $packages; } >"$log" 2>&1 </dev/null; then
	tail -n 20 "$log" >&2
	exit 3
fi
packages=$(missing | sort -u | tr '\n' ' ')
[ -z "$packages" ] || { printf '%s\n' "still missing after the installation: $packages" >&2; exit 3; }
