//! Damage to a tenant's files: an error that names the file and, where there is
//! one, the place; nothing is made worse; its snapshots can be forked and
//! exported, and the other tenants go on.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::wat;
use lazaret::{Host, Tenant, TenantError};

fn host(directory: &Path) -> Host {
    let builder = harness::builder().data_dir(directory.join("data"));
    builder.build().unwrap()
}

/// The heap's number.
fn count(tenant: &Tenant) -> u64 {
    let bytes = tenant.query("get", b"").unwrap().bytes;
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

/// The files of a tenant's with this extension, as bytes by path.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    paths
}

/// A damage: which file it is done to, and to what it leads; and what the error
/// has in it besides the file's name.
struct Damage {
    path: PathBuf,
    to: Option<Vec<u8>>,
    told: &'static str,
}

fn flipped(path: &Path, at: usize) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    Some(bytes)
}

fn damages(data: &Path) -> Vec<Damage> {
    let damage = |path: &Path, to, told| Damage {
        path: path.to_owned(),
        to,
        told,
    };
    let (tenant, twin) = (data.join("tenants/t"), data.join("tenants/other"));
    let manifest = tenant.join("manifest");
    let shard = files(&tenant, "shard").remove(0);
    let log = files(&tenant, "log").pop().unwrap();
    let other_shard = fs::read(files(&twin, "shard").remove(0)).unwrap();
    let other_log = fs::read(files(&twin, "log").pop().unwrap()).unwrap();
    let mut short = fs::read(&shard).unwrap();
    short.truncate(short.len() - 1);
    // A release that is yet to come: its number is behind the magic, its
    // checksum is at the end.
    let mut newer = fs::read(&manifest).unwrap();
    newer[8] = 99;
    let end = newer.len() - 16;
    let checksum = lazaret_image::header_checksum(&newer[..end]);
    newer[end..].copy_from_slice(&checksum);
    vec![
        damage(&manifest, None, "no image"),
        damage(&manifest, flipped(&manifest, 40), "at offset 0 is damaged"),
        damage(&manifest, Some(newer), "at offset 0: format version 99"),
        damage(&shard, None, "No such file"),
        damage(&shard, Some(short), "bytes"),
        damage(&shard, flipped(&shard, 50), "at offset 0 is damaged"),
        damage(&shard, Some(other_shard), "belongs to tenant"),
        damage(&log, None, "No such file"),
        // The first of its segments, which was durable when the second was written.
        damage(&log, flipped(&log, 60), "at offset 0: an acknowledged"),
        damage(&log, Some(other_log), "belongs to tenant"),
    ]
}

fn a_damaged_tenant_is_told_and_its_snapshots_can_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    {
        let host = host(directory.path());
        for name in ["t", "other"] {
            let tenant = host.install(name, wat("counter32"), b"").unwrap();
            tenant.update("inc", b"").unwrap();
            tenant.compact().unwrap();
            tenant.update("inc", b"").unwrap();
        }
        host.snapshot("t", "s").unwrap();
        let tenant = host.tenant("t").unwrap();
        // Both memories' shards are there, and a log that the snapshot has not.
        tenant.compact().unwrap();
        tenant.update("inc", b"").unwrap();
        tenant.update("inc", b"").unwrap();
    }
    for Damage { path, to, told } in damages(&data) {
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        if let Some(to) = &to {
            fs::write(&path, to).unwrap();
        }
        let context = format!("{}, {:?}", path.display(), to.as_ref().map(Vec::len));
        {
            let host = host(directory.path());
            let error = host.tenant("t").unwrap_err();
            assert!(
                matches!(error, TenantError::Open(_)),
                "{context}: {error:?}"
            );
            let text = error.to_string();
            let place = match path.ends_with("manifest") && to.is_none() {
                true => path.parent().unwrap(),
                false => &path,
            };
            let named = text.contains(place.to_str().unwrap());
            assert!(named && text.contains(told), "{context}: {text}");
            let fork = host.fork("t", "rescued", Some("s")).unwrap();
            assert_eq!(count(&fork), 2, "{context}");
            let mut archive = Vec::new();
            host.export("t", Some("s"), &mut archive, &mut |_| ())
                .unwrap();
            let imported = host.import("imported", &mut &*archive, &mut |_| ());
            assert_eq!(count(&imported.unwrap()), 2, "{context}");
            assert_eq!(count(&host.tenant("other").unwrap()), 2, "{context}");
            host.remove("rescued").unwrap();
            host.remove("imported").unwrap();
        }
        match to {
            Some(to) => assert!(fs::read(&path).unwrap() == to, "{context}: it was changed"),
            None => assert!(!path.exists(), "{context}"),
        }
        fs::write(&path, &kept).unwrap();
        let host = host(directory.path());
        assert_eq!(count(&host.tenant("t").unwrap()), 4, "{context}");
    }
}

fn a_damaged_module_is_told_and_whoever_brings_it_puts_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = {
        let host = host(directory.path());
        let tenant = host.install("t", wat("counter32"), b"").unwrap();
        tenant.update("inc", b"").unwrap();
        host.snapshot("t", "s").unwrap();
        files(&directory.path().join("data/modules"), "wasm").remove(0)
    };
    for to in [None, flipped(&path, 50)] {
        fs::remove_file(&path).unwrap();
        if let Some(to) = to {
            fs::write(&path, to).unwrap();
        }
        let host = host(directory.path());
        let told = |error: TenantError| {
            let text = error.to_string();
            assert!(text.contains(path.to_str().unwrap()), "{text}");
        };
        told(host.tenant("t").unwrap_err());
        told(host.fork("t", "new", Some("s")).unwrap_err());
        told(
            host.export("t", Some("s"), &mut Vec::new(), &mut |_| ())
                .unwrap_err(),
        );
        assert_eq!(
            host.tenants().unwrap(),
            ["t"],
            "a failed fork leaves nothing"
        );
        host.install("new", wat("counter32"), b"").unwrap();
        assert_eq!(count(&host.tenant("t").unwrap()), 1);
        host.remove("new").unwrap();
    }
}

fn a_snapshot_that_is_not_there_is_told_with_those_that_are() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path());
    host.install("t", wat("counter32"), b"").unwrap();
    host.snapshot("t", "s").unwrap();
    let told = |error: TenantError| match error {
        TenantError::NoSnapshot { known, .. } => assert_eq!(known, ["s"]),
        other => panic!("{other:?}"),
    };
    told(host.restore("t", "x").unwrap_err());
    told(host.fork("t", "new", Some("x")).unwrap_err());
    told(host.delete_snapshot("t", "x").unwrap_err());
    told(
        host.export("t", Some("x"), &mut Vec::new(), &mut |_| ())
            .unwrap_err(),
    );
    for bad in ["../t", "", ".s"] {
        let error = host.fork("t", "new", Some(bad)).unwrap_err();
        assert!(matches!(error, TenantError::Tag { .. }), "{error:?}");
    }
    let error = host.export("nobody", Some("s"), &mut Vec::new(), &mut |_| ());
    assert!(
        matches!(error, Err(TenantError::NotFound { .. })),
        "{error:?}"
    );
    assert_eq!(host.tenants().unwrap(), ["t"]);
}

harness::tests! {
    a_damaged_tenant_is_told_and_its_snapshots_can_be_used,
    a_damaged_module_is_told_and_whoever_brings_it_puts_it_back,
    a_snapshot_that_is_not_there_is_told_with_those_that_are,
}
