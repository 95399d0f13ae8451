#!/bin/sh
# The main job on real input with the real commands, each printed before it
# runs: a disk image with the machine's own Go sources in an ext4 file system,
# backed up, changed in place, backed up again, and restored. Needs no root.
# Everything happens in a temporary folder that is removed at the end.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH LC_ALL=C.UTF-8

sh tests/needs.sh --demo
began=$(date +%s)

say() { printf '\n# %s\n' "$*"; }

# run COMMAND...: print the command as one would type it, then run it. What is
# printed goes to the demo's output even where the command's output does not.
exec 3>&1
run() {
	{
		printf '$'
		for word in "$@"; do
			case $word in
			*[!A-Za-z0-9_./:=@,+-]*) printf " '%s'" "$word" ;;
			*) printf ' %s' "$word" ;;
			esac
		done
		printf '\n'
	} >&3
	"$@"
}

allocated() { echo $(($(stat -c %b "$1") * 512)); }
inside() { du -s --apparent-size --block-size=1 "$1" | cut -f1; }
mib() { echo "$((($1 + 524288) / 1048576)) MiB"; }

run make -s build

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
go build -buildvcs=false -o "$dir/mkimage" ./tests/demo/mkimage
sources=$(go env GOROOT)/src
mkdir "$dir/bin"
ln -s "$top/bin/holdfast" "$dir/bin/holdfast"
mv "$dir/mkimage" "$dir/bin/mkimage"
PATH=$dir/bin:$PATH
cd "$dir"
# A key or repository that the user has set up must not be touched.
for name in $(env | sed -n 's/^\(HOLDFAST_[A-Z_]*\)=.*/\1/p; s/^\(PBS_[A-Z_]*\)=.*/\1/p'); do
	unset "$name"
done
XDG_CONFIG_HOME=$dir/config
export XDG_CONFIG_HOME

say "A disk image: an ext4 file system with the Go sources, in a GPT partition."
run mke2fs -q -t ext4 -d "$sources/" part.img 768M
run mkimage part.img disk.img
rm part.img
run ls -lsh disk.img

say "A store, and a key whose passphrase comes from the environment."
run holdfast init store
printf '$ %s\n' "export HOLDFAST_ENCRYPTION_PASSWORD='correct horse battery staple'"
export HOLDFAST_ENCRYPTION_PASSWORD='correct horse battery staple'
run holdfast key create key.json

say "The first backup."
run holdfast backup -r ./store --keyfile key.json --backup-type vm --backup-id 100 disk0.img:disk.img
first_data=$(allocated disk.img)
first_store=$(inside store)

say "Files change inside the image, in place: some are written, some removed."
cp --sparse=always disk.img before.img
head -c 3000000 "$top/bin/holdfast" >program.new
seq 1 40000 >table.new
cat >changes <<COMMANDS
write program.new program
write table.new table
write table.new net/table
rm fmt/print.go
rm go/ast/ast.go
COMMANDS
run cat changes
run debugfs -w -f changes 'disk.img?offset=1048576' >debugfs.log 2>&1 || { cat debugfs.log; exit 1; }
if cmp -s before.img disk.img; then
	echo "the changes did not reach the image:" && cat debugfs.log
	exit 1
fi

say "The second backup stores only what is new."
sleep 1 # the name of a snapshot has full seconds
run holdfast backup -r ./store --keyfile key.json --backup-type vm --backup-id 100 disk0.img:disk.img
second_data=$(allocated disk.img)
second_store=$(inside store)

say "What is there?"
run holdfast list -r ./store
run holdfast snapshot list -r ./store vm/100
snapshots=$(holdfast snapshot list -r ./store --json vm/100 | sed -n 's/.*"snapshot":"\([^"]*\)".*/\1/p')
first=$(printf '%s\n' "$snapshots" | sort | head -n 1)

say "Restore the newest state, and compare every byte."
run holdfast restore -r ./store --keyfile key.json vm/100/latest disk0.img restored.img
run cmp disk.img restored.img
echo "identical"

say "Go back to the first state over the same file: only what differs is written."
run holdfast restore -r ./store --keyfile key.json --differential "$first" disk0.img restored.img
run cmp before.img restored.img
echo "identical"

say "Read everything back from the store and check it: decrypt, decompress, compare with its name."
run holdfast verify -r ./store --keyfile key.json

say "A backup of the unchanged image stores no data; scripts ask for JSON."
sleep 1
run holdfast backup --json --no-progress -r ./store --keyfile key.json --backup-type vm --backup-id 100 disk0.img:disk.img
run holdfast status -r ./store

say "What deduplication and compression saved"
status=$(holdfast status -r ./store --json)
field() { printf '%s\n' "$status" | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }
both=$((first_data + second_data))
unique=$(field plain_bytes)
cat <<SAVED
two states of a disk of $(mib "$(stat -c %s disk.img)"), without holes: $(mib "$both")
different chunks among them:                   $(mib "$unique") ($((100 * unique / both)) %)
the store, compressed and encrypted:           $(mib "$second_store") ($((100 * second_store / both)) %)
of it for the second state:                    $(mib $((second_store - first_store)))
SAVED
printf '\ndemo: done in %d s\n' $(($(date +%s) - began))
