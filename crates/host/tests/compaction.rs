//! Promise: compaction goes on beside the calls and changes none of them.

mod harness;

use std::num::NonZeroU64;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::wat;
use lazaret::{Host, Tenant};

fn host(directory: &Path, rate: Option<u64>) -> Host {
    harness::builder()
        .data_dir(directory.join("data"))
        .relaxed_durability()
        .compaction_rate(rate.and_then(NonZeroU64::new))
        .host_function("gate", 8, 8, |_| Ok(Vec::new()))
        .build()
        .unwrap()
}

fn set(tenant: &Tenant, number: u64) {
    tenant.update("set", &number.to_le_bytes()).unwrap();
}

fn read(tenant: &Tenant) -> u64 {
    let bytes = tenant.query("read", b"").unwrap().bytes;
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// A log that has outgrown its base is folded while updates and queries go on,
/// and the space is given back.
fn heavy_a_long_log_is_folded_beside_the_calls() {
    let directory = tempfile::tempdir().unwrap();
    let last = {
        let host = host(directory.path(), Some(20 << 20));
        let tenant = host.install("t", wat("versions"), b"").unwrap();
        let (mut number, mut most) = (0, 0);
        let begin = Instant::now();
        // More than 2.5 MB each: the log passes 64 MiB, and then some.
        loop {
            number += 1;
            set(&tenant, number);
            assert_eq!(read(&tenant), number);
            let bytes = tenant.info().disk_bytes;
            if bytes < most / 2 {
                break;
            }
            most = most.max(bytes);
            assert!(
                begin.elapsed() < Duration::from_secs(120),
                "{most} bytes after {number} updates, and nothing folded"
            );
        }
        assert!(most > 64 << 20, "{most}");
        set(&tenant, number + 1);
        tenant.sleep();
        assert_eq!(read(&tenant), number + 1);
        number + 1
    };
    let host = host(directory.path(), None);
    assert_eq!(read(&host.tenant("t").unwrap()), last);
}

/// A host that goes in the middle of a fold leaves nothing behind that the next
/// one doesn't take away.
fn heavy_a_fold_that_is_broken_off_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let files = || {
        let names = std::fs::read_dir(directory.path().join("data/tenants/t")).unwrap();
        names
            .filter(|name| {
                let name = name.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with("base-")
            })
            .count()
    };
    {
        // So slow that it doesn't end.
        let host = host(directory.path(), Some(1));
        let tenant = host.install("t", wat("versions"), b"").unwrap();
        for number in 1..=160 {
            set(&tenant, number);
        }
        let begin = Instant::now();
        while files() == 0 {
            assert!(begin.elapsed() < Duration::from_secs(30), "no fold began");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let host = host(directory.path(), None);
    let tenant = host.tenant("t").unwrap();
    assert_eq!(files(), 0, "leftovers");
    assert_eq!(read(&tenant), 160);
    set(&tenant, 161);
    assert_eq!(read(&tenant), 161);
}

harness::tests! {
    heavy_a_long_log_is_folded_beside_the_calls,
    heavy_a_fold_that_is_broken_off_leaves_nothing,
}
