//! Promise: a tenant with its snapshots takes no more of the disk than its quota;
//! what would is refused with a reason and changes nothing, compaction makes room
//! where it can, and whatever else the tenant does goes on.

mod harness;

use std::num::NonZeroU64;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::wat;
use lazaret::{Builder, CallError, DiskQuota, Host, Tenant, TenantError};

const MIB: u64 = 1 << 20;

fn builder(data: &Path) -> Builder {
    harness::builder().data_dir(data).relaxed_durability()
}

fn within(data: &Path, quota: u64) -> Host {
    builder(data)
        .tenant_limits(|limits| limits.disk = Some(quota))
        .build()
        .unwrap()
}

fn arguments(pages: u64) -> Vec<u8> {
    [pages.to_le_bytes(), 4096u64.to_le_bytes()].concat()
}

/// Adds one to a byte on each of so many pages.
fn write(tenant: &Tenant, pages: u64) -> Result<(), CallError> {
    tenant.update("write", &arguments(pages)).map(drop)
}

fn sum(tenant: &Tenant, pages: u64) -> u64 {
    let reply = tenant.query("sum", &arguments(pages)).unwrap();
    u64::from_le_bytes(reply.bytes.try_into().unwrap())
}

fn refused(result: Result<(), CallError>) -> DiskQuota {
    match result {
        Err(CallError::DiskQuota(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

fn over<T>(result: Result<T, TenantError>) -> DiskQuota {
    match result.map(drop) {
        Err(TenantError::DiskQuota(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

fn an_update_over_the_quota_changes_nothing_and_compaction_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let host = within(&data, 8 * MIB);
    let tenant = host.install("a", wat("pages"), b"").unwrap();
    assert_eq!(tenant.info().disk_quota_bytes, Some(8 * MIB));
    // Each is 2 MiB of the same pages: more than the quota together.
    for number in 1..=20 {
        write(&tenant, 512).unwrap();
        assert_eq!(sum(&tenant, 512), 512 * number);
    }
    for _ in 0..3 {
        let before = tenant.info();
        // 12 MiB: the disk is full in the middle of its segment.
        let refusal = refused(write(&tenant, 3_000));
        assert!(
            refusal.quota == 8 * MIB
                && refusal.snapshots == 0
                && refusal.used <= refusal.quota
                && refusal.used + refusal.needed > refusal.quota,
            "{refusal:?}"
        );
        let text = refusal.to_string();
        for number in [refusal.used, refusal.needed, refusal.quota] {
            assert!(text.contains(&number.to_string()), "{text}");
        }
        assert!(text.contains("--disk-quota"), "{text}");
        assert_eq!(tenant.info().version, before.version);
        assert_eq!(
            (sum(&tenant, 512), sum(&tenant, 3_000)),
            (512 * 20, 512 * 20)
        );
    }
    write(&tenant, 100).unwrap();
    assert_eq!(sum(&tenant, 512), 512 * 20 + 100);
    drop((tenant, host));
    let host = within(&data, 8 * MIB);
    let tenant = host.tenant("a").unwrap();
    assert_eq!(sum(&tenant, 512), 512 * 20 + 100);
    refused(write(&tenant, 3_000));
    // A quota is the host's, not the tenant's for ever.
    drop((tenant, host));
    let host = builder(&data).build().unwrap();
    write(&host.tenant("a").unwrap(), 3_000).unwrap();
}

fn snapshots_are_paid_for_once_and_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let host = within(&directory.path().join("data"), 8 * MIB);
    let tenant = host.install("a", wat("pages"), b"").unwrap();
    write(&tenant, 512).unwrap();
    // They share the tenant's files, so any number of them is little.
    for number in 0..10 {
        host.snapshot("a", &format!("same{number}")).unwrap();
    }
    for number in 0..10 {
        host.delete_snapshot("a", &format!("same{number}")).unwrap();
    }
    // Until compaction leaves the old files to them alone.
    let mut kept = 0;
    let (refusal, expected) = loop {
        let before = sum(&tenant, 512);
        if let Err(error) = write(&tenant, 512) {
            break (refused(Err(error)), before);
        }
        match host.snapshot("a", &format!("kept{kept}")) {
            Ok(_) => kept += 1,
            Err(error) => {
                over::<()>(Err(error));
            }
        }
        tenant.compact().unwrap();
        assert!(kept < 20, "nothing was refused");
    };
    assert!(refusal.snapshots > MIB && kept > 0, "{refusal:?}");
    assert!(refusal.to_string().contains("delete snapshots"));
    assert_eq!(sum(&tenant, 512), expected);
    assert_eq!(host.snapshots("a").unwrap().len(), kept);
    // All of them can be gone back to; a fork of one pays for itself.
    let fork = host.fork("a", "b", Some("kept0")).unwrap();
    assert_eq!(sum(&fork, 512), 2 * 512);
    for number in 0..kept {
        host.delete_snapshot("a", &format!("kept{number}")).unwrap();
    }
    write(&tenant, 512).unwrap();
    assert_eq!(sum(&tenant, 512), expected + 512);
    host.snapshot("a", "again").unwrap();
    host.restore("a", "again").unwrap();
    write(&tenant, 512).unwrap();
}

fn a_tenant_over_a_lowered_quota_is_read_but_not_multiplied() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let host = builder(&data).build().unwrap();
    let tenant = host.install("a", wat("pages"), b"").unwrap();
    write(&tenant, 1_024).unwrap();
    host.snapshot("a", "before").unwrap();
    let hash = tenant.state_hash().unwrap();
    let mut archive = Vec::new();
    host.export("a", None, &mut archive, &mut |_| {}).unwrap();
    drop((tenant, host));

    let host = within(&data, 2 * MIB);
    let tenant = host.tenant("a").unwrap();
    assert_eq!(sum(&tenant, 1_024), 1_024);
    assert_eq!(tenant.state_hash().unwrap(), hash);
    refused(write(&tenant, 1));
    over(host.snapshot("a", "after"));
    over(host.fork("a", "b", None));
    over(host.fork("a", "b", Some("before")));
    over(host.import("b", &mut &archive[..], &mut |_| {}));
    assert_eq!(host.tenants().unwrap(), ["a"]);
    assert_eq!(host.snapshots("a").unwrap().len(), 1);
    let mut again = Vec::new();
    host.export("a", None, &mut again, &mut |_| {}).unwrap();
    assert_eq!(sum(&tenant, 1_024), 1_024);
    drop((tenant, host));
    let host = within(&data, 16 * MIB);
    write(&host.tenant("a").unwrap(), 1_024).unwrap();
    let copy = host.import("b", &mut &again[..], &mut |_| {}).unwrap();
    assert_eq!(copy.state_hash().unwrap().hash, hash.hash);
}

/// While a compaction writes the second copy, which doesn't count, no other can
/// make room: updates are refused until it is done.
fn a_quota_that_is_reached_in_the_middle_of_a_compaction() {
    let directory = tempfile::tempdir().unwrap();
    let host = builder(&directory.path().join("data"))
        .tenant_limits(|limits| limits.disk = Some(96 * MIB))
        .compaction_rate(NonZeroU64::new(200_000))
        .build()
        .unwrap();
    let tenant = host.install("a", wat("pages"), b"").unwrap();
    // The look at whether compacting pays comes with the 64th commit, at 75 MiB.
    let (mut updates, begin) = (0, Instant::now());
    let refusal = loop {
        match write(&tenant, 300) {
            Ok(()) => updates += 1,
            Err(error) => break refused(Err(error)),
        }
        assert!(updates < 1_000, "nothing was refused");
    };
    assert!(
        updates > 64 && refusal.used > 64 * MIB,
        "{updates} {refusal:?}"
    );
    assert_eq!(sum(&tenant, 300), 300 * updates % 76_800);
    while let Err(error) = write(&tenant, 300) {
        refused(Err(error));
        assert!(begin.elapsed() < Duration::from_secs(60), "it never ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(sum(&tenant, 300), 300 * (updates + 1) % 76_800);
}

harness::tests! {
    an_update_over_the_quota_changes_nothing_and_compaction_makes_room,
    snapshots_are_paid_for_once_and_given_back,
    a_tenant_over_a_lowered_quota_is_read_but_not_multiplied,
    a_quota_that_is_reached_in_the_middle_of_a_compaction,
}
