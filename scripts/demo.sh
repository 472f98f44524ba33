#!/usr/bin/env bash
# Builds Lazaret, then runs a real program that nobody needs to trust (CPython) and a real tenant
# that keeps its state (a canister written in Motoko). Takes a few minutes the first time.
#
# Needs Rust with a C linker, and Node.js with npm for fetching the two (installed on Debian-like
# systems when run as root).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/fixtures.sh
cargo build --release -p lazaret-cli
lazaret=${CARGO_TARGET_DIR:-target}/release/lazaret

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

show() {
  printf '\n$ lazaret'
  printf ' %q' "$@"
  printf '\n'
  "$lazaret" "$@"
}

echo '== A program that nobody trusts: CPython, with one directory and nothing else'
mkdir "$scratch/data"
seq 1 1000 >"$scratch/data/numbers.txt"
show run --dir "$scratch/data::/data:ro" --time 60s --report "$scratch/report.json" .fixtures/python.wasm -c '
import os
print("sum:", sum(int(line) for line in open("/data/numbers.txt")))
for path in ("/etc/passwd", "/data/../../etc/passwd", "/proc/self/environ"):
    try:
        print(open(path).read())
    except OSError as error:
        print(path, "->", error.strerror)
print("environment:", dict(os.environ))'
echo
echo 'What was verified about its process, from outside:'
node -e '
const { receipt } = JSON.parse(require("fs").readFileSync(process.argv[1]));
for (const { layer, state, evidence } of receipt.layers) console.log("  " + layer.padEnd(18), state.padEnd(9), evidence);
' "$scratch/report.json"

echo
echo '== A tenant that keeps its state: a Motoko canister'
export LAZARET_DATA=$scratch/tenants
show install counter .fixtures/canisters/counter.wasm
show call counter inc
show call counter inc
show call counter add '(40)'
show call counter get
show ps
