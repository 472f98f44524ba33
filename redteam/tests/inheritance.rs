//! Promise: a worker has nothing that was another's, and leaves nothing to
//! anybody: no file that it could write, no addresses that could be guessed from
//! another's, no page that still holds what was in it.
#![cfg(target_arch = "x86_64")]
#![expect(
    clippy::duplicate_mod,
    reason = "both parts of the tests' harness ask what this kernel lacks"
)]

mod process;
mod quarantine;
mod view;
#[path = "../../tests/worker_memory.rs"]
mod worker_memory;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use lazaret::wall::Measure;
use lazaret::wall::executable::unwritable;
use lazaret::wall::measures::Standing;
use lazaret_redteam::attacks::leftovers::SCRAMBLE;
use lazaret_redteam::{ATTACK, TENANT};
use process::{WORKER_EXE, pidfd};
use quarantine::{Quarantine, Seen};
use view::host;

/// CVE-2019-5736: a container overwrote the `runc` that had started it through
/// `/proc/self/exe`.
#[test]
fn the_file_that_a_worker_runs_can_not_be_written_through_it() {
    process::as_each_user(
        "the_file_that_a_worker_runs_can_not_be_written_through_it",
        || {
            // A copy that belongs to this user, who may write it: the worst case,
            // and the usual one of `cargo install`.
            let own = std::env::temp_dir().join("own-worker");
            std::fs::copy(std::env::var_os(WORKER_EXE).expect("set"), &own).expect("a copy");
            let host = view::builder().worker_exe(&own).build().expect("a host");
            let tenant = host.install("tenant", TENANT, b"").expect("a tenant");
            tenant.update("add", &1u64.to_le_bytes()).expect("a call");
            let pid = tenant.info().worker.expect("its worker");
            let running = File::open(format!("/proc/{pid}/exe")).expect("what it runs");
            let how = unwritable(&running).expect("neither sealed nor on a read-only mount");
            let receipt = tenant.receipt().expect("a receipt");
            let entry = receipt
                .measures
                .iter()
                .find(|entry| entry.measure == Measure::Executable)
                .expect("the measure is on the receipt");
            assert_eq!(entry.standing, Standing::Verified(how.to_owned()));
            // Its mode can be changed by its path, and not through what runs: so it
            // is the mount, or the copy, that holds, and not that the file is in use
            // (ETXTBSY), which ends with the worker.
            let mode = || std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&own, mode()).expect("it is this user's");
            let through = format!("/proc/self/fd/{}", running.as_raw_fd());
            let changed = std::fs::set_permissions(&through, mode());
            match how {
                "sealed" => assert_ne!(
                    running.metadata().expect("its inode").ino(),
                    own.metadata().expect("its inode").ino()
                ),
                _ => assert_eq!(
                    changed.expect_err("a change through it").raw_os_error(),
                    Some(libc::EROFS)
                ),
            }
            assert!(
                std::fs::OpenOptions::new()
                    .write(true)
                    .open(&through)
                    .is_err(),
                "it was opened for writing"
            );
            // When nobody runs it any more, still not.
            drop((tenant, host));
            process::until("its end", || {
                !std::path::Path::new(&format!("/proc/{pid}")).exists()
            });
            let error = std::fs::OpenOptions::new()
                .write(true)
                .open(&through)
                .expect_err("it must not be opened for writing");
            if how != "sealed" {
                assert_eq!(error.raw_os_error(), Some(libc::EROFS));
            }
        },
    );
}

/// Where the kernel has put things in a worker: by name, the lowest address.
fn layout(pid: i32) -> BTreeMap<&'static str, u64> {
    let mut found = BTreeMap::new();
    for mapping in worker_memory::mappings(pid) {
        let what = match mapping.name.as_str() {
            "[heap]" => "break",
            "[stack]" => "stack",
            "[vdso]" => "vdso",
            name if name.contains("ld-linux") => "loader",
            name if name.contains("own-worker") || name.ends_with("/worker") => "executable",
            _ => continue,
        };
        found.entry(what).or_insert(mapping.from);
    }
    found
}

#[test]
fn each_worker_has_an_address_layout_of_its_own() {
    process::as_each_user("each_worker_has_an_address_layout_of_its_own", || {
        let host = host();
        let tenants =
            ["one", "two", "three"].map(|name| host.install(name, TENANT, b"").expect("a tenant"));
        let mut layouts = Vec::new();
        let mut pids = BTreeSet::new();
        for round in 0..2 {
            for tenant in &tenants {
                tenant.update("add", &1u64.to_le_bytes()).expect("a call");
                let info = tenant.info();
                let pid = info.worker.expect("its worker");
                assert!(pids.insert(pid), "worker {pid} was another's before");
                let receipt = tenant.receipt().expect("a receipt");
                assert!(
                    receipt.address_layout.is_full(),
                    "this kernel's addresses are not random: {:?}",
                    receipt.address_layout
                );
                layouts.push(layout(pid));
            }
            // The same tenants and the same module, in new workers.
            if round == 0 {
                for tenant in &tenants {
                    tenant.sleep();
                }
            }
        }
        for what in ["executable", "stack", "vdso", "break"] {
            let addresses: BTreeSet<u64> = layouts
                .iter()
                .map(|layout| {
                    *layout
                        .get(what)
                        .unwrap_or_else(|| panic!("{what}: {layout:?}"))
                })
                .collect();
            assert_eq!(addresses.len(), layouts.len(), "{what}: {layouts:x?}");
        }
        // Nor are they moved by the same offset: distances differ too.
        let distances: BTreeSet<u64> = layouts
            .iter()
            .map(|layout| layout["stack"].wrapping_sub(layout["executable"]))
            .collect();
        assert_eq!(distances.len(), layouts.len(), "{layouts:x?}");
    });
}

/// A tenant with 1 MiB of stable memory, in which attacks can be run.
const TENANT_WITH_STABLE_MEMORY: &str = r#"
(module
  (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
  (import "ic0" "msg_reply" (func $reply))
  (memory (export "memory") 256)
  (func (export "canister_init") (drop (call $grow (i64.const 16))))
  (func (export "canister_update ping") (call $reply))
  (func (export "canister_update attack") unreachable))
"#;

/// What `find` is told: the word's product, and every range that can be read.
fn find(word: u64, pid: i32) -> String {
    let mut text = format!("find {}", word.wrapping_mul(SCRAMBLE));
    for mapping in worker_memory::mappings(pid) {
        if mapping.flags.starts_with('r') && !mapping.name.starts_with("[vvar") {
            write!(text, " {:x}-{:x}", mapping.from, mapping.to).expect("text");
        }
    }
    text
}

fn attack(tenant: &lazaret::Tenant, text: &str) -> String {
    match Seen::call(tenant.update(ATTACK, text.as_bytes())) {
        Seen::Reply(text) => text,
        other => panic!("{text:.60}: {other:?}"),
    }
}

/// The numbers in `found N in M bytes`.
fn numbers(text: &str) -> (u64, u64) {
    let mut words = text.split(' ');
    let mut after = |mark: &str| -> u64 {
        words
            .by_ref()
            .skip_while(|word| *word != mark)
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("{text}"))
    };
    (after("found"), after("in"))
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).expect("random");
    // No byte that zeros or ASCII could be taken for.
    u64::from_ne_bytes(bytes) | 0x8080_8080_8080_8080
}

#[test]
fn nothing_of_a_tenant_s_is_found_by_others() {
    let quarantine = Quarantine::new();
    let host = &quarantine.host;
    let word = random();
    let install = |name: &str| {
        let tenant = host
            .install(name, TENANT_WITH_STABLE_MEMORY, b"")
            .expect("a tenant");
        tenant.update("ping", b"").expect("a call");
        tenant
    };
    for round in 0..3 {
        let a = install("a");
        let planted = attack(&a, &format!("plant {word}"));
        assert!(
            planted.starts_with("planted in 16777216 bytes of heap and 1048576 of stable"),
            "{planted}"
        );
        let pid = a.info().worker.expect("its worker");
        // It is where it was put, and both ways of looking find it there.
        let outside = worker_memory::search(pid, &word.to_ne_bytes());
        let pages = (16 << 20) / 4096 + 256;
        assert!(
            outside.places.len() > pages,
            "{} places",
            outside.places.len()
        );
        let (found, _) = numbers(&attack(&a, &find(word, pid)));
        assert!(found > 16 << 17, "{found} found by itself");
        // Some go by being removed, some by being put to sleep first, and one
        // is killed.
        let ended = pidfd(pid);
        match round {
            0 => {}
            1 => a.sleep(),
            _ => process::kill(pid),
        }
        drop(a);
        host.remove("a").expect("removed");
        assert!(process::end_of(&ended, std::time::Duration::from_secs(10)));

        for number in 0..4 {
            let name = format!("b-{round}-{number}");
            let b = install(&name);
            let worker = b.info().worker.expect("its worker");
            assert_ne!(worker, pid);
            let (found, looked) = numbers(&attack(&b, &find(word, worker)));
            assert_eq!(found, 0, "worker {number} found it");
            assert!(looked > 256 << 20, "{looked} bytes");
            let outside = worker_memory::search(worker, &word.to_ne_bytes());
            assert_eq!(outside.places, vec![], "worker {number}");
            assert!(outside.bytes > 1 << 20 && outside.shared > 0, "{outside:?}");
            drop(b);
            host.remove(&name).expect("removed");
        }
    }
    quarantine.neighbour_is_right();
}
