#!/usr/bin/env bash
# Models the hand-over (tests/handover, docs/CONCURRENCY.md): every model on SCHEDULES schedules, from SEED on.
#   tests/handover.sh [SCHEDULES [SEED [MODEL]]]
set -euo pipefail
cd "$(dirname "$0")/.."
export LARDER_SCHEDULES="${1:-100000}" LARDER_SEED="${2:-1}"
# A build of its own: the cfg changes every crate.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/handover" CARGO_INCREMENTAL=0
export RUSTFLAGS="${RUSTFLAGS:-} --cfg larder_model"
cargo test -p larder --test handover -- --nocapture ${3:+"$3"}
