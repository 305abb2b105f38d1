#!/usr/bin/env bash
# System calls that fail, or in which the process is killed, by strace (tests/crash/syscalls.rs): of each kind of call and
# trouble the first POINTS that concern the store.
#   tests/syscalls.sh [POINTS [SEED [KINDS]]]      KINDS: a part of the names, such as `sync` or `kill`
# Prints one line of JSON; fails on any loss. Where processes cannot be traced, it says so and passes.
set -euo pipefail
cd "$(dirname "$0")/.."
points="${1:-30}" seed="${2:-0}" kinds="${3:-}"
skip() {
    echo "skipped: $*" >&2
    echo '{"skipped":true}'
    exit 0
}
command -v strace > /dev/null || skip "no strace"
# A call that is refused on request shows that tracing is allowed, and that this strace can do it.
strace -f --seccomp-bpf -qqq -o /dev/null -e trace=openat -e inject=openat:error=EMFILE true 2> /dev/null &&
    skip "this strace injects nothing"
strace -f --seccomp-bpf -qqq -o /dev/null -e trace=openat true 2> /dev/null || skip "processes cannot be traced here"
LARDER_CRASH_SYSCALLS="$points $seed $kinds" cargo test -q --release -p larder --test crash
