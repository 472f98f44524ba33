#!/usr/bin/env bash
# Runs the tests of the wall and of the tenants' memory on one of Debian's own kernels, in a virtual
# machine that is emulated in software: so what is done where a kernel lacks something is done for
# real, and on the cgroup v2 hierarchy.
#
#     scripts/older-kernel.sh                      everything, as root and as an ordinary user
#     scripts/older-kernel.sh --kernel 6.12        on the kernel of a later Debian
#     scripts/older-kernel.sh --user root 'package(lazaret-wall)'
#                                                  only as root, only what this nextest filter names
#
#   --kernel 6.1|6.12      which kernel: 6.1 is Debian 12's (the default), 6.12 Debian 13's; of each
#                          the newest build, which is printed
#   --user root|ordinary   one of the two runs only
#   --shell                a shell in the machine instead
#
# Needs Rust, cargo-nextest and Node.js as scripts/test.sh does; beside them apt-get with Debian's
# archive keyring, mke2fs and strip. It needs no rights and installs nothing: emulator and kernel are
# unpacked below the target directory (80 MB to download, once). An x86-64 machine with 5 GB of memory
# and 3 GB of disk to spare. The exit code is 0 if everything passed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

say() { printf 'older-kernel: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

kernel=6.1 users='root ordinary' shell='' chosen=''
while (($#)); do
  case $1 in
    --kernel) kernel=${2?--kernel needs a version} && shift 2 ;;
    --user) users=${2?--user needs root or ordinary} && shift 2 ;;
    --shell) shell=1 && shift ;;
    -*) die "$1 is no option: --kernel, --user and --shell are" ;;
    *) chosen=$1 && shift ;;
  esac
done
case $kernel in
  6.1) release=bookworm ;;
  6.12) release=trixie ;;
  *) die "--kernel $kernel: there are 6.1 (Debian 12) and 6.12 (Debian 13)" ;;
esac
case $users in
  'root ordinary' | root | ordinary) ;;
  *) die "--user $users: there are root and ordinary" ;;
esac
[[ $(uname -m) == x86_64 ]] || die "the machine is emulated for x86-64, with this one's libraries: $(uname -m) won't do"
for command in apt-get dpkg-deb mke2fs cargo node strip; do
  command -v "$command" >/dev/null || die "$command is needed (Debian: apt-get install apt e2fsprogs binutils nodejs)"
done

# What is run, and what is not: a filter set of nextest's, with the reason.
packages='lazaret-wall lazaret-redteam lazaret lazaret-guest'
filter='package(/^lazaret(-wall|-redteam|-guest)?$/)'
leave_out() { filter="$filter - $1"; } # FILTER-SET REASON
leave_out 'test(/(^|::)heavy_/)' \
  'is slow on a real processor already: compiles a program of many megabytes, or fills memory'
leave_out 'binary(=crashes)' \
  'kills a host hundreds of times, once for each change it makes to a file: of image and disk, which are not the kernel'"'"'s'
leave_out 'test(=ten_thousand_calls_beside_a_worker_that_scribbles_over_everything_shared)' \
  'ten thousand calls take more than five minutes'
[[ $users != 'root ordinary' ]] || leave_out 'binary(=ordinary_user)' \
  'runs the tests of other files as an ordinary user, which is what the second run does'
[[ -z $chosen ]] || filter=$chosen

target=$(cargo metadata --format-version 1 --no-deps --locked |
  node -p 'JSON.parse(require("fs").readFileSync(0)).target_directory')
cache=$target/older-kernel
debian=$cache/$release
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/tree

# apt-get with a state of its own: it knows one Debian release, and no package is installed there.
apt() { # ARGUMENT...
  apt-get -qq -o Dir::Etc::SourceList="$debian/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o Dir::State="$debian" -o Dir::State::Lists="$debian/lists" -o Dir::State::status="$debian/status" \
    -o Dir::Cache="$debian" -o Dir::Log="$debian" -o APT::Sandbox::User="$(id -un)" \
    -o APT::Architecture=amd64 -o Acquire::Languages=none -o Debug::NoLocking=1 "$@"
}

# The emulator with all libraries it needs, and the kernel, unpacked in $debian/tree. apt-get checks
# Debian's signature of the lists, and by them each package.
fetch_machine() {
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg stamp package
  [[ -f $keyring ]] || die "$keyring is needed to check what is downloaded (Debian: apt-get install debian-archive-keyring)"
  mkdir -p "$debian/lists/partial" "$debian/archives/partial"
  : >"$debian/status"
  cat >"$debian/sources.list" <<LIST
deb [signed-by=$keyring] http://deb.debian.org/debian $release main
deb [signed-by=$keyring] http://deb.debian.org/debian $release-updates main
deb [signed-by=$keyring] http://deb.debian.org/debian-security $release-security main
LIST
  apt update
  # The package without a version depends on the newest build.
  image=$(apt install --simulate --no-install-recommends linux-image-cloud-amd64 |
    sed -n "s/^Inst \(linux-image-$kernel\.[^ ]*-cloud-amd64\) .*/\1/p")
  [[ -n $image ]] || die "Debian $release has no cloud kernel $kernel any more"
  apt autoclean >/dev/null
  apt install --download-only --no-install-recommends -y qemu-system-x86 busybox-static >/dev/null
  (cd "$debian/archives" && apt download "$image" >/dev/null)
  stamp=$(cd "$debian/archives" && printf '%s\n' ./*.deb)
  [[ -f $debian/.stamp && $(<"$debian/.stamp") == "$stamp" ]] && return
  say "unpacking Debian $release's emulator and kernel"
  rm -rf "$debian/tree" "$debian/.stamp"
  mkdir -p "$debian/tree/usr/lib" "$debian/tree/usr/lib64" "$debian/tree/usr/bin" "$debian/tree/usr/sbin"
  for package in lib lib64 bin sbin; do ln -s "usr/$package" "$debian/tree/$package"; done
  for package in "$debian"/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --no-same-owner -C "$debian/tree"
  done
  printf '%s\n' "$stamp" >"$debian/.stamp"
}

# The tests and all they look at while they run, each under the name that it has here.
stage() {
  local binary library
  cargo nextest list --workspace --release --locked --list-type binaries-only --message-format json >"$work/all.json"
  mkdir -p "$tree$root" "$tree/etc"
  cargo metadata --format-version 1 --locked >"$tree/etc/cargo-metadata.json"
  # Only the binaries of the packages that are tested.
  node -e '
    const [all, metadata, packages] = process.argv.slice(1);
    const read = (path) => JSON.parse(require("fs").readFileSync(path));
    const list = read(all);
    const ids = read(metadata).packages.filter((it) => packages.split(" ").includes(it.name)).map((it) => it.id);
    const kept = Object.entries(list["rust-binaries"]).filter(([, it]) => ids.includes(it["package-id"]));
    list["rust-binaries"] = Object.fromEntries(kept);
    console.log(JSON.stringify(list));
  ' "$work/all.json" "$tree/etc/cargo-metadata.json" "$packages" >"$tree/etc/binaries.json"
  node -e '
    const list = JSON.parse(require("fs").readFileSync(process.argv[1]));
    for (const it of Object.values(list["rust-binaries"])) console.log(it["binary-path"]);
    const meta = list["rust-build-meta"];
    for (const it of Object.values(meta["non-test-binaries"]).flat()) console.log(meta["target-directory"] + "/" + it.path);
  ' "$tree/etc/binaries.json" >"$work/binaries"
  while read -r binary; do
    mkdir -p "$tree${binary%/*}"
    # Without what only a debugger reads: a quarter is left.
    strip --strip-debug -o "$tree$binary" "$binary"
  done <"$work/binaries"
  # Without cargo nobody looks for what the build scripts left.
  mkdir -p "$tree$target/tmp" "$tree$root/target/nextest"

  git ls-files -z | xargs -0 cp --parents -t "$tree$root"
  mkdir -p "$tree$root/.fixtures"
  cp -r .fixtures/*.wasm .fixtures/canisters "$tree$root/.fixtures/"

  mkdir -p "$tree/bin"
  install "$(command -v cargo-nextest)" "$tree/bin/cargo-nextest"
  # This machine's C library, as it is what the tests are linked with.
  while read -r library; do
    mkdir -p "$tree${library%/*}"
    cp -L "$library" "$tree$library"
  done < <(ldd "$(command -v cargo-nextest)" $(<"$work/binaries") | grep -o '/[^ ]*' | grep -v ':$' | sort -u)
}

# The root file system: an image that the kernel mounts without any module.
make_disk() {
  local directory user
  for directory in proc sys dev run scratch tmp; do mkdir -p "$tree/$directory"; done
  install -m 755 scripts/older-kernel/init "$tree/init"
  install "$debian/tree/bin/busybox" "$tree/bin/busybox"
  printf '%s:x:%d:%d::/scratch:/bin/sh\n' root 0 0 ordinary 1000 1000 nobody 65534 65534 >"$tree/etc/passwd"
  printf '%s:x:%d:\n' root 0 ordinary 1000 nobody 65534 >"$tree/etc/group"
  {
    printf 'root=%q target=%q shell=%q\n' "$root" "$target" "$shell"
    printf "users='%s' filter='%s'\n" "$users" "$filter"
  } >"$tree/etc/older-kernel.conf"
  # Everything is root's there, whoever builds it.
  chmod -R u+rwX,go+rX "$tree"
  chmod 1777 "$tree/tmp" "$tree/scratch" "$tree$target/tmp" "$tree$root/target/nextest"
  local size
  size=$(du -sm --apparent-size "$tree" | cut -f1)
  truncate -s $((size + size / 8 + 1024))M "$work/disk"
  mke2fs -q -t ext4 -d "$tree" -E root_owner=0:0 "$work/disk"
  rm -rf "$tree"
}

# The machine, until it switches itself off. Its output is this script's.
run_machine() {
  local libraries=$debian/tree/usr/lib/x86_64-linux-gnu
  QEMU_MODULE_DIR=$libraries/qemu "$debian/tree/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" \
    "$debian/tree/usr/bin/qemu-system-x86_64" -L "$debian/tree/usr/share/qemu" -L "$debian/tree/usr/share/seabios" \
    -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 4G \
    -nodefaults -no-user-config -no-reboot -display none -nic none -serial stdio \
    -drive "if=none,id=disk,format=raw,cache=unsafe,discard=unmap,file=$work/disk" -device nvme,drive=disk,serial=1 \
    -kernel "$debian/tree/boot/vmlinuz-${image#linux-image-}" \
    -append "console=ttyS0 quiet audit=${shell:-0} panic=-1 root=/dev/nvme0n1 rw init=/init"
}

fetch_machine
say 'building and packing the tests'
stage
make_disk
version() { dpkg-deb --show --showformat '${Package} ${Version}' "$debian/archives/$1"_*.deb; }
say "$(version "$image"), $(version qemu-system-x86)"

if [[ -n $shell ]]; then
  run_machine
  exit
fi
run_machine </dev/null | tee "$work/output"
grep -q '^older-kernel: ended with status 0' "$work/output"
