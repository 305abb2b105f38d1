#!/usr/bin/env bash
# Builds and runs every Rust example of README.md as a program of its own, in an empty directory: `tests/readme.sh`.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
package="$(mktemp -d)"
trap 'rm -rf "$package"' EXIT

mkdir -p "$package/src/bin" "$package/cwd"
awk -v out="$package/src/bin/example" '
    /^```rust$/ { file = sprintf("%s%d.rs", out, ++n); next }
    /^```$/     { file = "" }
    file        { print > file }
' "$root/README.md"
cat > "$package/Cargo.toml" << EOF
[package]
name = "readme"
version = "0.0.0"
edition = "2024"
[dependencies]
larder = { path = "$root" }
[workspace]
EOF
# The versions that everything else is tested with.
cp "$root/Cargo.lock" "$package/"

examples=("$package"/src/bin/*.rs)
[ -e "${examples[0]}" ] || { echo "README.md has no Rust examples" >&2; exit 1; }
cargo build --quiet --manifest-path "$package/Cargo.toml"
cd "$package/cwd"
for example in "${examples[@]}"; do
    name="$(basename "$example" .rs)"
    "$CARGO_TARGET_DIR/debug/$name" > /dev/null || { echo "$name failed: $(head -n 1 "$example") ..." >&2; exit 1; }
done
echo "${#examples[@]} examples of README.md built and run"
