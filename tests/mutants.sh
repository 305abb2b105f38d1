#!/usr/bin/env bash
# Mutates the cold tier, one change at a time, and looks whether a test fails: a seeded sample (docs/RELIABILITY.md).
#   tests/mutants.sh [COUNT [SEED]]    until COUNT mutants (150) that compile have been judged, in the order of SEED (1)
#   tests/mutants.sh again [SEED]      those that were not caught, once more: after tests were added
# cargo-mutants (`cargo install cargo-mutants`) says what to change; tests/mutants.py builds and tries it.
# Each mutant adds a line to LOG (target/mutants-SEED.jsonl): started again, the script goes on behind the last one. Its last
# line is a summary as JSON.
set -euo pipefail
cd "$(dirname "$0")/.."
count="${1:-150}" seed="${2:-1}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}" CARGO_TERM_COLOR=never
log="${LOG:-$CARGO_TARGET_DIR/mutants-$seed.jsonl}"
command -v python3 > /dev/null || { echo "no python3" >&2; exit 1; }
cargo mutants --version > /dev/null || { echo "no cargo-mutants: cargo install cargo-mutants" >&2; exit 1; }

copy="${COPY:-$CARGO_TARGET_DIR/mutants}"
mkdir -p "$copy/tree"
cargo mutants --list --json -f 'src/cache/tier/cold/**' > "$copy/mutants.json"
# A build of its own: cargo takes a copy of the tree for the tree.
CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$copy/target" exec python3 tests/mutants.py "$copy" "$count" "$seed" "$log"
