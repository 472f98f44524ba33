//! A full disk in the middle of a commit: the update fails with a reason, the
//! tenant stays at its last version and is usable, and once there is room
//! again it goes on.
//!
//! The disk is a small tmpfs in a mount namespace of this process's own.

mod harness;

use std::path::PathBuf;

use harness::{cache, wat};
use lazaret::{CallError, Host};

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

fn a_full_disk_fails_the_update_and_nothing_else() {
    let data = disk().join("data");
    let host = Host::builder()
        .data_dir(&data)
        .cache_dir(cache())
        .build()
        .unwrap();
    let tenant = host.install("pages", wat("pages"), b"").unwrap();
    let argument = |a: u64, b: u64| [a.to_le_bytes(), b.to_le_bytes()].concat();
    let sum = || tenant.query("sum", &argument(600, 4096)).unwrap().bytes;
    tenant.update("write", &argument(600, 4096)).unwrap();
    let before = sum();
    // Leaves less than the next update needs.
    let filler = disk().join("filler");
    let mut size = 12 << 20;
    while size > 0 {
        match std::fs::write(&filler, vec![1u8; size]) {
            Ok(()) => break,
            Err(_) => size -= 1 << 20,
        }
    }
    for _ in 0..3 {
        match tenant.update("write", &argument(600, 4096)) {
            Err(CallError::Commit(error)) => {
                assert!(error.to_string().contains("space"), "{error}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(sum(), before);
    }
    std::fs::remove_file(&filler).unwrap();
    tenant.update("write", &argument(600, 4096)).unwrap();
    let after = sum();
    assert_ne!(after, before);
    drop((tenant, host));
    let host = Host::builder()
        .data_dir(&data)
        .cache_dir(cache())
        .build()
        .unwrap();
    assert_eq!(
        host.tenant("pages")
            .unwrap()
            .query("sum", &argument(600, 4096))
            .unwrap()
            .bytes,
        after
    );
}

fn main() {
    if std::env::args_os()
        .next()
        .is_some_and(|name| !name.as_encoded_bytes().starts_with(b"lazaret:"))
    {
        small_disk();
    }
    harness::main(&[(
        "a_full_disk_fails_the_update_and_nothing_else",
        a_full_disk_fails_the_update_and_nothing_else,
        &[],
    )]);
}
