#!/usr/bin/env bash
# The stress test under ThreadSanitizer and AddressSanitizer (docs/CONCURRENCY.md): each store is kept busy SECONDS long.
#   tests/sanitize.sh [thread|address|both [SECONDS]]
# std is built with the sanitizer too, or ThreadSanitizer would not see its locks: `rustup component add rust-src`.
set -euo pipefail
cd "$(dirname "$0")/.."
which="${1:-both}"
export LARDER_STRESS_SECONDS="${2:-60}"
host="$(rustc -vV | sed -n 's/^host: //p')"
base="${CARGO_TARGET_DIR:-target}"
[ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ] || rustup component add rust-src
# Sanitizers are unstable: this lets a stable compiler use them, in builds of their own.
export RUSTC_BOOTSTRAP=1 CARGO_INCREMENTAL=0
for sanitizer in thread address; do
    [ "$which" = both ] || [ "$which" = "$sanitizer" ] || continue
    echo "=== $sanitizer"
    # C code (zstd) is built by the system's compiler, for which the sanitizer is of no use without its runtime.
    CARGO_TARGET_DIR="$base/sanitize-$sanitizer" \
        RUSTFLAGS="-Zsanitizer=$sanitizer -Cunsafe-allow-abi-mismatch=sanitizer" \
        TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1" \
        ASAN_OPTIONS="detect_leaks=1" \
        cargo test -Zbuild-std --release --target "$host" -p larder --test stress -- --nocapture --test-threads 1
done
