#!/usr/bin/env bash
# Fuzzes every target for a while, one after another, and stops at the first finding: what a nightly
# job runs.
#
#     scripts/fuzz.sh              20 minutes each
#     scripts/fuzz.sh 60 wire      60 seconds, this target only
#
# Needs cargo-fuzz (installed if it is missing) and a compiler that takes unstable options, which any
# does with RUSTC_BOOTSTRAP=1. What is found is in fuzz/artifacts; inputs that reach new code go to a
# directory of its own, and those worth keeping are put into fuzz/corpus by `scripts/fuzz.sh --keep`,
# which reduces each corpus to the inputs that it needs.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"
export RUSTC_BOOTSTRAP=1

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz@0.13.2
grown=${LAZARET_FUZZ_CORPUS:-${TMPDIR:-/tmp}/lazaret-fuzz-corpus}

targets() { cargo fuzz list; }

if [[ ${1-} == --keep ]]; then
  for target in $(targets); do
    mkdir -p "$grown/$target" "corpus/$target"
    # As few inputs as reach everything, of at most 2 KiB: the corpus is part of the tree.
    needed=$(mktemp -d)
    cargo fuzz run "$target" "$needed" "corpus/$target" "$grown/$target" -- \
      -set_cover_merge=1 -max_len=2048
    rm -r "corpus/$target"
    mv "$needed" "corpus/$target"
  done
  exit
fi

seconds=${1:-1200}
shift || true
for target in "${@:-$(targets)}"; do
  for one in $target; do
    printf '=== %s for %s s\n' "$one" "$seconds" >&2
    mkdir -p "$grown/$one" "corpus/$one"
    # New inputs go to the first directory.
    cargo fuzz run "$one" "$grown/$one" "corpus/$one" -- \
      -max_total_time="$seconds" -rss_limit_mb=4096 -print_final_stats=1
  done
done
