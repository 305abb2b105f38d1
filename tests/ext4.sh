#!/usr/bin/env bash
# Power cuts of a real ext4 (tests/crash/ext4.rs): a store is written and maintained on an image on a loop device, the
# file system is shut down in the midst of it, mounted again, and the store judged.
#   tests/ext4.sh [ROUNDS [SEED]]
# Prints one line of JSON; fails on any loss. Only root can do this; where it cannot be done, it says why and passes.
set -euo pipefail

case "${1:-}" in
# What the program asks for: the file system of $2 loses what was not synced; $3: 1 writes its journal out before, 2 not.
--shut-down)
    exec python3 -c '
import fcntl, os, struct, sys
EXT4_IOC_SHUTDOWN = 0x8004587D
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), EXT4_IOC_SHUTDOWN, struct.pack("I", int(sys.argv[2])))' "$2" "$3"
    ;;
--mount-again)
    umount "$2"
    exec mount -o loop "$2.img" "$2"
    ;;
esac

cd "$(dirname "$0")/.."
self="$PWD/tests/ext4.sh"
rounds="${1:-100}" seed="${2:-0}"
skip() {
    echo "skipped: $*" >&2
    echo '{"skipped":true}'
    exit 0
}
[ "$(id -u)" = 0 ] || skip "only root can mount"
for tool in mkfs.ext4 mount umount python3; do
    command -v "$tool" > /dev/null || skip "no $tool"
done

dir="$(mktemp -d)"
mount_point="$dir/ext4"
cleanup() {
    mountpoint -q "$mount_point" && umount "$mount_point"
    rm -rf "$dir"
}
trap cleanup EXIT
mkdir "$mount_point"
truncate -s 256M "$mount_point.img"
mkfs.ext4 -q -F "$mount_point.img"
mount -o loop "$mount_point.img" "$mount_point" || skip "no loop device can be mounted"

# The tool is tried before it is trusted: what was synced stays, what was not goes.
echo kept > "$mount_point/kept"
sync
echo lost > "$mount_point/lost"
"$self" --shut-down "$mount_point" 2 || skip "this kernel cannot shut an ext4 down"
"$self" --mount-again "$mount_point"
[ -e "$mount_point/kept" ] && [ ! -e "$mount_point/lost" ] || skip "the shutdown of this kernel is no power cut"
rm "$mount_point/kept"

LARDER_CRASH_EXT4="$rounds $seed $mount_point $self" \
    cargo test -q --release -p larder --test crash
