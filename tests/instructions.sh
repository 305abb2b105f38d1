#!/usr/bin/env bash
# Instructions a call, counted by callgrind, against limits with room to spare: a gate against regressions that, unlike
# a clock, gives the same answer on a busy machine. Prints a table; fails where a limit is passed.
set -euo pipefail
cd "$(dirname "$0")/.."

TIMES=2000
# Operation, and instructions on the caller's thread that it may take: half as many again as when the limit was set (2026-11).
LIMITS="get_hit 4000
get_miss 600
insert 20000
remove_absent 500"

command -v valgrind > /dev/null || { echo "skipped: no valgrind (apt-get install valgrind)"; exit 0; }
program="$(cargo bench --bench instructions --no-run --message-format=json 2> /dev/null |
    grep -o '"executable":"[^"]*instructions-[^"]*"' | tail -n 1 | cut -d '"' -f 4)"
[ -x "$program" ] || { cargo bench --bench instructions --no-run; echo "no program to count"; exit 1; }

counts="$(mktemp)"
trap 'rm -f "$counts"' EXIT
failed=0
printf '%-14s %12s %8s\n' operation instructions limit
while read -r operation limit; do
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*instructions*counted*' \
        "$program" "$operation" "$TIMES" > "$counts" 2>&1 || { cat "$counts"; exit 1; }
    collected="$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$counts")"
    [ "${collected:-0}" -gt 0 ] || { cat "$counts"; echo "nothing was counted"; exit 1; }
    each=$((collected / TIMES))
    printf '%-14s %12s %8s\n' "$operation" "$each" "$limit"
    if [ "$each" -gt "$limit" ]; then failed=1; fi
done <<< "$LIMITS"
if [ "$failed" = 1 ]; then
    echo "more instructions than the limit: profile it (callgrind_annotate), or say in the commit why the limit rises"
    exit 1
fi
