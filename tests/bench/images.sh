#!/bin/sh
# Makes the disk images that the benchmark measures, in the folder given.
# Needs root (loop mounts, chroot) and a Debian mirror. An image that is there
# already is kept, so that later runs start at once.
#
#   night1.img  a Debian system on ext4 in a 10 GiB disk, most of it holes
#   night2.img  the same disk after a night: packages, logs, a database
#   xfs.img     another Debian server of the same administrator on XFS
#   other.img   a Debian system with quite other software on XFS
#   dense.img   2 GiB of file data without one hole
#
# It runs in a mount namespace of its own, so that no mount of it is seen
# outside or outlives it, and holds a lock on the folder.
set -eu

if [ -z "${HOLDFAST_BENCH_INSIDE:-}" ]; then
	[ "$(id -u)" = 0 ] || { echo "images: needs root (loop mounts, chroot)" >&2; exit 1; }
	mkdir -p "$1"
	HOLDFAST_BENCH_INSIDE=1 exec flock "$1/lock" unshare --mount sh "$0" "$@"
fi

dir=${1:?usage: images.sh FOLDER MKIMAGE}
mkimage=${2:?usage: images.sh FOLDER MKIMAGE}
suite=bookworm
# what the administrator installs on every machine
common=python3,openssh-server,build-essential,linux-image-amd64,git,vim,ca-certificates,curl,less,man-db,locales
offset=1048576
part_size=10734272512

# archive CODENAME: where this machine's apt gets that part of Debian from.
archive() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $1" | sed -n 1p
}
mirror=${HOLDFAST_BENCH_MIRROR:-$(archive "$suite")}
security=${HOLDFAST_BENCH_SECURITY:-$(archive "$suite-security")}
[ -n "$mirror" ] && [ -n "$security" ] ||
	{ echo "images: apt knows no $suite and $suite-security; set HOLDFAST_BENCH_MIRROR and HOLDFAST_BENCH_SECURITY" >&2; exit 1; }

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

say() { printf '%s\n' "images: $*"; }

mnt=$dir/mnt
loop=
cleanup() {
	for d in proc sys dev/shm dev; do
		mountpoint -q "$mnt/$d" && umount "$mnt/$d"
	done
	if mountpoint -q "$mnt"; then umount "$mnt"; fi
	if [ -n "$loop" ]; then losetup -d "$loop" && loop=; fi
	return 0
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# attach FILE OFFSET: a loop device over the partition.
attach() { loop=$(losetup --find --show --offset "$2" "$1"); }

# root NAME PACKAGES: an installed Debian system as a folder.
root() {
	[ -e "$dir/$1.done" ] && return
	say "installing Debian $suite into $1"
	rm -rf --one-file-system "${dir:?}/$1"
	debootstrap --variant=minbase --include="$2" "$suite" "$dir/$1" "$mirror" >"$dir/$1.log" 2>&1 ||
		{ tail -n 5 "$dir/$1.log" >&2; exit 1; }
	touch "$dir/$1.done"
}

# enter: the pseudo file systems a chroot needs, and no service starts.
enter() {
	mount --bind /dev "$mnt/dev"
	mount -t tmpfs shm "$mnt/dev/shm"
	mount -t proc proc "$mnt/proc"
	mount -t sysfs sys "$mnt/sys"
	printf '#!/bin/sh\nexit 101\n' >"$mnt/usr/sbin/policy-rc.d"
	chmod 755 "$mnt/usr/sbin/policy-rc.d"
	cp /etc/resolv.conf "$mnt/etc/resolv.conf"
}

inside() { chroot "$mnt" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }

# database SQL-COMMANDS: run pgbench against the database in the image.
database() {
	pg=/usr/lib/postgresql/15/bin
	data=/var/lib/postgresql/15/main
	inside su postgres -c "$pg/pg_ctl -s -w -D $data -o '-c config_file=/etc/postgresql/15/main/postgresql.conf' start" >/dev/null
	inside su postgres -c "$1" >/dev/null 2>&1 || { say "the database commands did not work: $1" >&2; exit 1; }
	inside su postgres -c "$pg/pg_ctl -s -w -D $data stop" >/dev/null
}

# logs START LINES: lines of a web server's log; numbers repeat for a seed.
logs() {
	awk -v seed="$1" -v n="$2" 'BEGIN {
		srand(seed)
		split("/ /index.html /api/v1/items /api/v1/users /static/app.js /static/site.css /login /favicon.ico", page, " ")
		split("200 200 200 200 200 304 404 500", code, " ")
		for (i = 0; i < n; i++)
			printf "10.%d.%d.%d - - [%02d/Nov/2026:%02d:%02d:%02d +0000] \"GET %s?id=%d HTTP/1.1\" %s %d \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\"\n",
				rand()*4, rand()*256, rand()*256, seed, int(i*24/n), int(rand()*60), int(rand()*60),
				page[1+int(rand()*8)], rand()*1000000, code[1+int(rand()*8)], rand()*200000
	}'
}

night1() {
	[ -e "$dir/night1.done" ] && return
	root root-a "$common,nginx,postgresql"
	say "making night1.img"
	rm -f "$dir/part.img" "$dir/night1.img"
	truncate -s "$part_size" "$dir/part.img"
	mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -d "$dir/root-a" "$dir/part.img"
	"$mkimage" "$dir/part.img" "$dir/night1.img"
	rm -f "$dir/part.img"
	attach "$dir/night1.img" "$offset"
	mkdir -p "$mnt" && mount "$loop" "$mnt"
	enter
	mkdir -p "$mnt/var/log/nginx"
	logs 20 600000 >"$mnt/var/log/nginx/access.log"
	logs 19 500000 | gzip >"$mnt/var/log/nginx/access.log.1.gz"
	database "createdb bench && pgbench -q -i -s 12 bench"
	inside dd if=/dev/urandom of=/var/backups/secret.bin bs=1M count=64 status=none
	cleanup
	touch "$dir/night1.done"
}

night2() {
	[ -e "$dir/night2.done" ] && return
	say "making night2.img: the same disk after a night"
	rm -f "$dir/night2.img"
	cp --sparse=always --reflink=auto "$dir/night1.img" "$dir/night2.img"
	attach "$dir/night2.img" "$offset"
	mkdir -p "$mnt" && mount "$loop" "$mnt"
	enter
	printf '%s\n' "deb $mirror $suite main" "deb $security $suite-security main" >"$mnt/etc/apt/sources.list"
	inside apt-get -qq update
	inside apt-get -qq -y install --no-install-recommends sqlite3 jq htop tmux rsync >/dev/null 2>&1
	inside apt-get -qq -y install --only-upgrade openssl libssl3 openssh-server curl git libc6 >/dev/null 2>&1
	logs 20 600000 | gzip >"$mnt/var/log/nginx/access.log.1.gz"
	logs 21 80000 >>"$mnt/var/log/nginx/access.log"
	cat >"$mnt/tmp/night.sql" <<'SQL'
\set aid random_zipfian(1, 100000 * :scale, 1.3)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :aid, :delta, CURRENT_TIMESTAMP);
END;
SQL
	database "pgbench -n -s 12 -t 5000 --random-seed=7 -f /tmp/night.sql bench"
	rm -rf "$mnt/usr/share/doc/git" "$mnt/usr/share/vim/vim90/lang" "$mnt/tmp/night.sql"
	inside useradd -m night
	cleanup
	touch "$dir/night2.done"
}

# xfs IMAGE ROOT: the folder as an XFS disk.
xfs() {
	say "making $1.img"
	rm -f "$dir/part.img" "$dir/$1.img"
	truncate -s "$part_size" "$dir/part.img"
	mkfs.xfs -q "$dir/part.img"
	attach "$dir/part.img" 0
	mkdir -p "$mnt" && mount "$loop" "$mnt"
	cp -a "$dir/$2/." "$mnt/"
	cleanup
	"$mkimage" "$dir/part.img" "$dir/$1.img"
	rm -f "$dir/part.img"
	touch "$dir/$1.done"
}

neighbours() {
	[ -e "$dir/xfs.done" ] || {
		root root-b "$common,apache2,mariadb-server,php,php-mysql,php-gd,redis-server,rsync"
		xfs xfs root-b
	}
	[ -e "$dir/other.done" ] || {
		root root-c apache2,mariadb-server,php,php-mysql,openjdk-17-jre-headless,nodejs,linux-image-cloud-amd64,perl,emacs-nox,man-db,locales,samba,golang-1.19-go
		xfs other root-c
	}
}

dense() {
	[ -e "$dir/dense.done" ] && return
	say "making dense.img"
	tar -C "$dir" -c root-c/usr root-a/usr 2>/dev/null | head -c 2147483648 >"$dir/dense.img" || true
	[ "$(stat -c %s "$dir/dense.img")" = 2147483648 ] || { say "too few files for dense.img" >&2; exit 1; }
	touch "$dir/dense.done"
}

night1
night2
neighbours
dense
