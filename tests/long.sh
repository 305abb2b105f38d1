#!/usr/bin/env bash
# Fault suites for as long as there is time: batch after batch of `tests/crash`, each with seeds of its own.
#   tests/long.sh [BATCHES [PERCENT [LOG [SUITE...]]]]      BATCHES: 0 goes on until it is stopped
# A batch is PERCENT % of a full run (100). Each adds a line to LOG (target/long-run.jsonl): its first seed, the one behind
# its last, what it counted. Started again with the same log, it goes on behind the last seed. After each batch the totals of
# the log are written to docs/reliability-long-run.json (or where SUMMARY says).
# A suite has fewer seeds in a batch than the longest one, and leaves the others out. The suite of damage tries the same
# bytes again every hundred seeds; only what it puts in their place differs.
set -euo pipefail
cd "$(dirname "$0")/.."
batches="${1:-0}" percent="${2:-100}" log="${3:-${CARGO_TARGET_DIR:-target}/long-run.jsonl}"
shift $(($# < 3 ? $# : 3))
suites=("$@")
summary="${SUMMARY:-docs/reliability-long-run.json}"
command -v python3 > /dev/null || { echo "no python3" >&2; exit 1; }
mkdir -p "$(dirname "$log")"
touch "$log"

# Seeds that the longest suite takes.
jobs="$(sed -n 's/.*jobs: \([0-9]*\),.*/\1/p' tests/crash/*.rs | sort -n | tail -n 1)"
[ -n "$jobs" ] || { echo "tests/crash names no number of jobs" >&2; exit 1; }
seeds=$(((jobs * percent + 99) / 100))
out="$(mktemp)"
trap 'rm -f "$out"' EXIT

totals() {
    python3 - "$log" "$summary" << 'EOF'
import json, os, sys

log, summary = sys.argv[1:]
lines = [json.loads(line) for line in open(log) if line.strip()]
counts, ranges = {}, {}
for line in lines:
    for name, cases in line["counts"].items():
        counts[name] = counts.get(name, 0) + cases
    # Batches that follow each other are one range.
    of = ranges.setdefault(f"{line['suites']}, {line['percent']} %", [])
    if of and of[-1][1] == line["seed"]:
        of[-1][1] = line["next_seed"]
    else:
        of.append([line["seed"], line["next_seed"]])
total = {
    "batches": len(lines),
    "failed_batches": [line["seed"] for line in lines if line["exit"] != 0],
    "seconds": sum(line["seconds"] for line in lines),
    "revisions": sorted({line["revision"] for line in lines}),
    "seeds": {suites: [f"{first} to {end - 1}" for first, end in of] for suites, of in ranges.items()},
    "counts": counts,
}
with open(summary + ".tmp", "w") as out:
    json.dump(total, out, indent=2)
    out.write("\n")
os.replace(summary + ".tmp", summary)
print(json.dumps(counts))
EOF
}

batch=0
while [ "$batches" = 0 ] || [ "$batch" -lt "$batches" ]; do
    batch=$((batch + 1))
    seed="$(python3 -c '
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1]) if line.strip()]
print(max((line["next_seed"] for line in lines), default=0))' "$log")"
    printf '=== seeds %s to %s\n' "$seed" "$((seed + seeds - 1))"
    started=$SECONDS status=0
    LARDER_CRASH_SEED="$seed" LARDER_CRASH_PERCENT="$percent" \
        cargo test -q --release -p larder --test crash -- "${suites[@]}" > "$out" 2>&1 || status=$?
    counts="$(grep -E '^\{"' "$out" | tail -n 1)" || true
    # A batch that was interrupted, or did not even build, counted nothing and is tried again.
    if [ -z "$counts" ]; then
        tail -n 20 "$out" >&2
        exit 1
    fi
    revision="$(git rev-parse --short HEAD 2> /dev/null || echo unknown)"
    [ -z "$(git status --porcelain -- src tests Cargo.lock 2> /dev/null)" ] || revision="$revision+changes"
    printf '{"date":"%s","revision":"%s","suites":"%s","percent":%s,"seed":%s,"next_seed":%s,"seconds":%s,"exit":%s,"counts":%s}\n' \
        "$(date -u +%FT%TZ)" "$revision" "${suites[*]:-all}" "$percent" "$seed" "$((seed + seeds))" "$((SECONDS - started))" \
        "$status" "$counts" >> "$log"
    totals
    if [ "$status" != 0 ]; then
        cat "$out"
        echo "FAILED: the batch of seed $seed; what was printed is above, started again it goes on behind it" >&2
        exit 1
    fi
done
