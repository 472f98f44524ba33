#!/usr/bin/env bash
# Installs what the tests need, prepares their fixtures, and runs all of them.
#
#     scripts/test.sh                     everything, and once more as in a container
#     scripts/test.sh -p lazaret-wire     arguments go to `cargo nextest run`; documentation tests
#                                         and the container are left out then
#
# Needs Rust with a C linker, and Node.js with npm (installed on Debian-like systems when run as
# root). The tests that check the wall as an ordinary user change their uid themselves when run as
# root; run as an ordinary user, they run as that user.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The version that .config/nextest.toml was written for, and the oldest that understands it.
nextest=0.9.143
nextest_minimum=0.9.100

say() { printf 'test: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

command -v cargo >/dev/null || die 'cargo is not installed: see https://rustup.rs'
command -v cc >/dev/null ||
  die 'no C linker: install one (Debian: apt-get install build-essential)'

# cargo puts what it installs here, which a fresh shell may not search yet.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

installed=$(cargo nextest --version 2>/dev/null | sed -n '1s/^cargo-nextest \([0-9.]*\).*/\1/p' || true)
if [[ -z $installed || $(printf '%s\n' "$nextest_minimum" "$installed" | sort -V | head -n 1) != "$nextest_minimum" ]]; then
  say "installing cargo-nextest $nextest (a few minutes, once)"
  cargo install --locked "cargo-nextest@$nextest"
fi

scripts/fixtures.sh

cargo nextest run --workspace --release "$@"
if (($# == 0)); then
  cargo test --doc --workspace --release
  say 'once more, as in a container that refuses namespaces'
  scripts/as-in-a-container.sh
fi
