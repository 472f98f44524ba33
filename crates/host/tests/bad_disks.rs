//! A disk that is full in the middle of an operation: it fails with a reason,
//! the tenant stays at its last version and is usable, and once there is room
//! again it goes on. And a disk that can't be written.
//!
//! The disk is a small tmpfs in a mount namespace of this process's own.

mod harness;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use harness::{cache, wat};
use lazaret::{BuildError, CallError, Depth, FsckEvent, Host};

/// Where the small disk is mounted, in this process's view only.
fn disk() -> PathBuf {
    std::env::temp_dir().join("lazaret-small-disk")
}

fn small_disk() {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let flags = if uid == 0 {
        libc::CLONE_NEWNS
    } else {
        libc::CLONE_NEWNS | libc::CLONE_NEWUSER
    };
    // SAFETY: this process has one thread yet.
    let done = unsafe { libc::unshare(flags) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    if uid != 0 {
        std::fs::write("/proc/self/setgroups", "deny").unwrap();
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).unwrap();
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).unwrap();
    }
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .unwrap();
    std::fs::create_dir_all(disk()).unwrap();
    mount(
        "tmpfs",
        disk(),
        "tmpfs",
        MountFlags::empty(),
        c"size=12m,mode=1777",
    )
    .unwrap();
}

/// There is one disk.
static ALONE: Mutex<()> = Mutex::new(());

fn host(data: &Path) -> Host {
    let builder = harness::older_kernels::builder()
        .data_dir(data)
        .cache_dir(cache());
    builder.build().unwrap()
}

fn argument(a: u64, b: u64) -> Vec<u8> {
    [a.to_le_bytes(), b.to_le_bytes()].concat()
}

/// The sum of what the updates have written.
fn sum(host: &Host, name: &str) -> u64 {
    let tenant = host.tenant(name).unwrap();
    let bytes = tenant.query("sum", &argument(600, 4096)).unwrap().bytes;
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// Pages that are free on the disk.
fn free() -> u64 {
    rustix::fs::statvfs(disk()).unwrap().f_bavail
}

fn filler() -> PathBuf {
    disk().join("filler")
}

/// Leaves so many pages free.
fn fill(left: u64) {
    let mut file = std::fs::File::create(filler()).unwrap();
    // Some kernels count pages of their own beside a file's, so the last ones are
    // written one by one.
    let most = free().saturating_sub(left + 64) as usize;
    file.write_all(&vec![1u8; most * 4096]).unwrap();
    while free() > left && file.write_all(&[1u8; 4096]).is_ok() {}
    while free() < left {
        let length = file.metadata().unwrap().len();
        file.set_len(length - 4096).unwrap();
    }
    // The last page is out of reach where it takes two.
    assert!(free().abs_diff(left) <= 1, "{} of {left}", free());
}

fn found(data: &Path) -> Vec<String> {
    let mut found = Vec::new();
    lazaret::fsck(data, &[], Depth::Pages, &mut |event| {
        if let FsckEvent::Finding(finding) = event {
            found.push(format!("{}: {}", finding.path.display(), finding.problem));
        }
    })
    .unwrap();
    found
}

fn a_full_disk_fails_the_update_and_nothing_else() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let data = disk().join("update");
    let host = host(&data);
    let tenant = host.install("pages", wat("pages"), b"").unwrap();
    tenant.update("write", &argument(600, 4096)).unwrap();
    fill(256);
    for _ in 0..3 {
        match tenant.update("write", &argument(600, 4096)) {
            Err(error @ CallError::Shortage { .. }) => {
                assert!(error.is_retryable());
                let text = error.to_string();
                assert!(text.contains("make space on the disk"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(sum(&host, "pages"), 600);
    }
    std::fs::remove_file(filler()).unwrap();
    tenant.update("write", &argument(600, 4096)).unwrap();
    assert_eq!(sum(&host, "pages"), 1200);
    drop((tenant, host));
    assert_eq!(sum(&self::host(&data), "pages"), 1200);
    std::fs::remove_dir_all(data).unwrap();
}

/// What is done, and what is undone when it went well.
type Operation<'a> = (
    &'a str,
    &'a dyn Fn(&Host) -> Result<(), String>,
    &'a dyn Fn(&Host),
);

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// However little room there is, an operation is done or not done.
fn a_full_disk_fails_any_operation_and_nothing_else() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let data = disk().join("operations");
    let host = host(&data);
    let tenant = host.install("t", wat("pages"), b"").unwrap();
    tenant.update("write", &argument(600, 4096)).unwrap();
    host.snapshot("t", "s").unwrap();
    let mut archive = Vec::new();
    host.export("t", None, &mut archive, &mut |_| ()).unwrap();
    let other = String::from_utf8(wat("pages")).unwrap();
    let other = other.replace("canister_query read", "canister_query peek");
    let undo_tenant = |host: &Host| host.remove("new").unwrap();
    let undo_state = |host: &Host| drop(host.restore("t", "s").unwrap());
    let nothing = |_: &Host| ();
    let operations: &[Operation<'_>] = &[
        (
            "snapshot",
            &|host| host.snapshot("t", "new").map(drop).map_err(text),
            &|host| host.delete_snapshot("t", "new").unwrap(),
        ),
        (
            "fork",
            &|host| host.fork("t", "new", None).map(drop).map_err(text),
            &undo_tenant,
        ),
        (
            "fork of a snapshot",
            &|host| host.fork("t", "new", Some("s")).map(drop).map_err(text),
            &undo_tenant,
        ),
        (
            "restore",
            &|host| host.restore("t", "s").map(drop).map_err(text),
            &nothing,
        ),
        (
            "compaction",
            &|host| host.tenant("t").unwrap().compact().map_err(text),
            &nothing,
        ),
        (
            "import",
            &|host| {
                let imported = host.import("new", &mut &*archive, &mut |_| ());
                imported.map(drop).map_err(text)
            },
            &undo_tenant,
        ),
        (
            "install",
            &|host| {
                let number = 7u64.to_le_bytes();
                let installed = host.install("new", wat("cells"), &number);
                installed.map(drop).map_err(text)
            },
            &undo_tenant,
        ),
        (
            "upgrade",
            &|host| {
                let upgraded = host.upgrade("t", other.clone(), b"");
                upgraded.map(drop).map_err(text)
            },
            &undo_state,
        ),
    ];
    for (name, operation, undo) in operations {
        let mut failed = 0;
        let rooms = [0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256, 512, 800];
        let enough = rooms.into_iter().find(|room| {
            let before = free();
            fill(*room);
            let done = operation(&host);
            std::fs::remove_file(filler()).unwrap();
            match &done {
                Ok(()) => undo(&host),
                Err(error) => {
                    failed += 1;
                    assert!(error.contains("pace"), "{name} with {room} pages: {error}");
                    // But for its module, which is kept for whoever tries again.
                    let kept = before.saturating_sub(free());
                    assert!(kept <= 2, "{name} with {room} pages keeps {kept}");
                }
            }
            assert_eq!(sum(&host, "t"), 600, "{name} with {room} pages: {done:?}");
            assert_eq!(host.tenants().unwrap(), ["t"], "{name} with {room} pages");
            let tags = host.snapshots("t").unwrap();
            let tags: Vec<String> = tags.into_iter().map(|found| found.unwrap().tag).collect();
            assert_eq!(tags, ["s"], "{name} with {room} pages");
            done.is_ok()
        });
        assert!(enough.is_some(), "{name} needs more room than expected");
        assert!(failed > 0, "{name} needs no room");
    }
    tenant.update("write", &argument(600, 4096)).unwrap();
    assert_eq!(sum(&host, "t"), 1200);
    drop((tenant, host));
    let found = found(&data);
    let unused = |line: &String| line.contains("no tenant and no snapshot has this module");
    assert!(found.iter().all(unused), "{found:#?}");
    std::fs::remove_dir_all(data).unwrap();
}

/// On a disk that is mounted read-only a check works, and a host says why it
/// can't.
fn a_read_only_disk_is_named_and_can_be_checked() {
    use rustix::mount::{MountFlags, mount_remount};
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let data = disk().join("read-only");
    {
        let host = host(&data);
        let tenant = host.install("t", wat("pages"), b"").unwrap();
        tenant.update("write", &argument(600, 4096)).unwrap();
    }
    mount_remount(disk(), MountFlags::RDONLY, c"").unwrap();
    let refused = harness::older_kernels::builder()
        .data_dir(&data)
        .cache_dir(cache())
        .build();
    match refused {
        Err(error @ BuildError::DataDir(_)) => {
            let (text, lock) = (error.to_string(), data.join("lock"));
            assert!(text.contains(lock.to_str().unwrap()), "{text}");
            assert!(text.contains("Read-only file system"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let checked = found(&data);
    mount_remount(disk(), MountFlags::empty(), c"").unwrap();
    assert_eq!(checked, [] as [&str; 0]);
    assert_eq!(sum(&host(&data), "t"), 600);
    std::fs::remove_dir_all(data).unwrap();
}

fn main() {
    // Small disks are mounts of their own.
    if harness::older_kernels::needs_namespaces() {
        return harness::main(&[]);
    }
    if std::env::args_os()
        .next()
        .is_some_and(|name| !name.as_encoded_bytes().starts_with(b"lazaret:"))
    {
        small_disk();
    }
    harness::main(&[
        (
            "a_full_disk_fails_the_update_and_nothing_else",
            a_full_disk_fails_the_update_and_nothing_else,
            &[],
        ),
        (
            "a_full_disk_fails_any_operation_and_nothing_else",
            a_full_disk_fails_any_operation_and_nothing_else,
            &[],
        ),
        (
            "a_read_only_disk_is_named_and_can_be_checked",
            a_read_only_disk_is_named_and_can_be_checked,
            &[],
        ),
    ]);
}
