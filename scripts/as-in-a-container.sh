#!/usr/bin/env bash
# Runs the tests as in a container by default: without namespaces, mounts and what else Docker's and
# Kubernetes' profiles refuse, as an ordinary user, with `--profile container`. Tests that are about
# namespaces are left out.
#
#     scripts/as-in-a-container.sh                 everything
#     scripts/as-in-a-container.sh --no-fail-fast  arguments go to `cargo nextest run`
#
# The fixtures must be there (scripts/fixtures.sh), as nothing is fetched in here.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --quiet --release --workspace --example as_in_a_container
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

# The user that the tests become may not write where root builds.
own=$(mktemp -d "${TMPDIR:-/tmp}/as-in-a-container.XXXXXX")
trap 'rm -rf "$own"' EXIT
chmod 1777 "$own"

host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=$target/release/examples/as_in_a_container"
export LAZARET_PROFILE=container TMPDIR=$own
# About namespaces and what they carry, one by one (off, missing_layers, outside, suite); about what
# every call leaves on record, some of which the outer filter refuses without a word (system_calls'
# attacks and programs, channels' calls); about what only a user namespace or a mount keeps from
# this user (a core dump, beside the limit; where the executable lies; a sealed copy of it can be
# opened for writing, though not written); about the kernel's tracker (the bench's table); in processes
# that make namespaces themselves (lazaret-guest's program); and without any worker (lazaret-image,
# lazaret-instrument).
except='binary(off) + binary(missing_layers) + binary(outside) + binary(suite)
  + (binary(system_calls) & test(by_system_call)) + test(no_channel_s_calls_are_answered)
  + test(a_crash_of_a_worker_leaves_no_core) + test(each_worker_has_an_address_layout_of_its_own)
  + test(the_32_bit_entry_kills) + test(/^a_program_with_a_directory_to_/) + package(lazaret-image) + package(lazaret-instrument)
  + test(a_program_that_imports_nothing_dies) + test(the_file_that_a_worker_runs_can_not_be_written)
  + test(heavy_every_row_is_there) + (binary(cli) & test(/^redteam::a/)) + (package(lazaret-guest) & binary(program))'
cargo nextest run --workspace --release -E "not ($except)" "$@"
