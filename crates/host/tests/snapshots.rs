//! Promise: a snapshot keeps what a tenant was, and a fork goes its own way;
//! both share the tenant's files.

mod harness;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use harness::wat;
use lazaret::{CallError, Host, Tenant, TenantError};

/// A host at `directory`, and those who wait at the gate of `hold`.
fn host(directory: &Path) -> (Host, Receiver<Sender<()>>) {
    let (arrive, held) = channel();
    let arrive = Arc::new(Mutex::new(arrive));
    let host = harness::builder()
        .data_dir(directory.join("data"))
        .host_function("gate", 8, 8, move |_| {
            let (go_on, wait) = channel();
            arrive.lock().unwrap().send(go_on).unwrap();
            wait.recv().map_err(|error| error.to_string())?;
            Ok(Vec::new())
        })
        .build()
        .unwrap();
    (host, held)
}

fn set(tenant: &Tenant, number: u64) {
    tenant.update("set", &number.to_le_bytes()).unwrap();
}

fn read(tenant: &Tenant) -> u64 {
    let bytes = tenant.query("read", b"").unwrap().bytes;
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn a_snapshot_is_what_the_tenant_was_then() {
    let directory = tempfile::tempdir().unwrap();
    {
        let (host, _) = host(directory.path());
        let tenant = host.install("t", wat("versions"), b"").unwrap();
        set(&tenant, 1);
        let made = host.snapshot("t", "one").unwrap();
        assert_eq!(made.version, tenant.info().version);
        set(&tenant, 2);
        tenant.update("grow", &3u64.to_le_bytes()).unwrap();
        set(&tenant, 4);
        let (grown, version) = (tenant.info().heap_bytes, tenant.info().version);
        host.snapshot("t", "four").unwrap();
        let tenant = host.restore("t", "one").unwrap();
        assert_eq!(read(&tenant), 1);
        assert!(tenant.info().version > version && tenant.info().heap_bytes < grown);
        set(&tenant, 5);
        assert_eq!(read(&tenant), 5);
    }
    // Another host finds the same.
    let (host, _) = host(directory.path());
    let tenant = host.tenant("t").unwrap();
    assert_eq!(read(&tenant), 5);
    host.restore("t", "four").unwrap();
    assert_eq!(read(&tenant), 4);
    let tags: Vec<String> = host
        .snapshots("t")
        .unwrap()
        .into_iter()
        .map(|found| found.unwrap().tag)
        .collect();
    assert_eq!(tags, ["four", "one"]);
    host.delete_snapshot("t", "four").unwrap();
    assert_eq!(read(&tenant), 4);
    match host.restore("t", "four") {
        Err(TenantError::NoSnapshot { known, .. }) => assert_eq!(known, ["one"]),
        other => panic!("{other:?}"),
    }
    host.remove("t").unwrap();
    assert!(!directory.path().join("data/snapshots/t").exists());
}

fn a_snapshot_has_its_module_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (host, _) = host(directory.path());
    let tenant = host.install("t", wat("versions"), b"").unwrap();
    set(&tenant, 1);
    host.snapshot("t", "one").unwrap();
    let newer = String::from_utf8(wat("versions"))
        .unwrap()
        .replace("canister_query read", "canister_query read_again");
    host.upgrade("t", newer, b"").unwrap();
    set(&tenant, 2);
    assert!(matches!(
        tenant.query("read", b""),
        Err(CallError::NoMethod { .. })
    ));
    host.restore("t", "one").unwrap();
    assert_eq!(read(&tenant), 1);
    tenant.sleep();
    assert_eq!(read(&tenant), 1);
}

/// A query that is running when its tenant is restored ends with the version
/// that it began with.
fn a_restore_waits_for_no_query() {
    let directory = tempfile::tempdir().unwrap();
    let (host, held) = host(directory.path());
    let tenant = host.install("t", wat("versions"), b"").unwrap();
    set(&tenant, 1);
    host.snapshot("t", "one").unwrap();
    set(&tenant, 2);
    std::thread::scope(|scope| {
        let long = scope.spawn(|| tenant.query("hold", b"").unwrap());
        let go_on = held.recv().unwrap();
        host.restore("t", "one").unwrap();
        assert_eq!(read(&tenant), 1);
        go_on.send(()).unwrap();
        assert_eq!(long.join().unwrap().bytes, 2u64.to_le_bytes());
    });
    assert_eq!((0..6).map(|_| read(&tenant)).collect::<Vec<_>>(), [1; 6]);
}

fn a_fork_and_its_origin_go_their_own_ways() {
    let directory = tempfile::tempdir().unwrap();
    let (host, _) = host(directory.path());
    let tenant = host.install("t", wat("versions"), b"").unwrap();
    set(&tenant, 1);
    host.snapshot("t", "one").unwrap();
    set(&tenant, 2);
    let fork = host.fork("t", "fork", None).unwrap();
    let older = host.fork("t", "older", Some("one")).unwrap();
    assert_ne!(fork.info().principal, tenant.info().principal);
    assert_eq!((read(&fork), read(&older), read(&tenant)), (2, 1, 2));
    // Files that both have are the same.
    let shared = || -> Vec<u64> {
        let files = std::fs::read_dir(directory.path().join("data/tenants/fork")).unwrap();
        let links = files.map(|file| file.unwrap().metadata().unwrap().nlink());
        links.filter(|links| *links > 1).collect()
    };
    assert!(!shared().is_empty());
    set(&fork, 10);
    set(&older, 11);
    set(&tenant, 12);
    assert_eq!((read(&fork), read(&older), read(&tenant)), (10, 11, 12));
    match host.fork("t", "fork", None) {
        Err(TenantError::Exists(name)) => assert_eq!(name, "fork"),
        other => panic!("{other:?}"),
    }
    // A fork is nobody's but its own: it has no snapshots.
    assert!(host.snapshots("fork").unwrap().is_empty());
    host.remove("t").unwrap();
    fork.sleep();
    older.sleep();
    assert_eq!((read(&fork), read(&older)), (10, 11));
    host.remove("older").unwrap();
    assert_eq!(shared(), [] as [u64; 0], "what nobody shares is given back");
    assert_eq!(read(&fork), 10);
}

harness::tests! {
    a_snapshot_is_what_the_tenant_was_then,
    a_snapshot_has_its_module_with_it,
    a_restore_waits_for_no_query,
    a_fork_and_its_origin_go_their_own_ways,
}
