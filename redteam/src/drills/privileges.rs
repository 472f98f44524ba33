//! Gaining rights, and using those of a namespace of one's own.

use lazaret_wall::Layer;

use super::files::path;
use crate::drill::{Aim, Barrier, Drill, Stand, Tried, step};
use crate::inside::Inside;

const SECCOMP: Barrier = Barrier::Wall(Layer::Seccomp);
const CAPABILITIES: Barrier = Barrier::Wall(Layer::Capabilities);
const LANDLOCK: Barrier = Barrier::Wall(Layer::Landlock);
const ROOT: Barrier = Barrier::Wall(Layer::EmptyRoot);
const UTS: Barrier = Barrier::Wall(Layer::UtsNamespace);

const fn drill(
    name: &'static str,
    tries: &'static str,
    aim: Aim,
    barriers: &'static [Barrier],
    at_least: usize,
    run: fn(&mut Inside<'_>) -> Tried,
) -> Drill {
    Drill {
        name,
        tries,
        stand: Stand::Tenant,
        aim,
        barriers,
        at_least,
        run,
    }
}

/// The drills.
pub const DRILLS: &[Drill] = &[
    drill(
        "new_user_namespace",
        "makes a user namespace, in which it is root again (unshare)",
        Aim::Namespace("user"),
        &[SECCOMP],
        1,
        |_| unshare(libc::CLONE_NEWUSER),
    ),
    drill(
        "new_network_namespace",
        "makes a network namespace with the rights that it has in its user namespace",
        Aim::Namespace("net"),
        &[SECCOMP, CAPABILITIES],
        2,
        |_| unshare(libc::CLONE_NEWNET),
    ),
    drill(
        "mount",
        "mounts a file system over its root directory",
        Aim::Mounts,
        &[SECCOMP, LANDLOCK, CAPABILITIES],
        3,
        |_| {
            step(
                "mount",
                libc::SYS_mount,
                &[
                    c"tmpfs".as_ptr() as u64,
                    c"/".as_ptr() as u64,
                    c"tmpfs".as_ptr() as u64,
                    0,
                    0,
                ],
            )?;
            Ok("mounted".into())
        },
    ),
    drill(
        "mount_proc",
        "makes a /proc of its own (fsopen, fsmount)",
        Aim::Holds("anon_inode:[fscontext]"),
        &[SECCOMP, CAPABILITIES],
        2,
        |_| {
            let fd = step("fsopen", libc::SYS_fsopen, &[c"proc".as_ptr() as u64, 1])?;
            Ok(format!("descriptor {fd}"))
        },
    ),
    drill(
        "change_root",
        "makes another directory its root (chroot)",
        Aim::Root,
        &[SECCOMP, CAPABILITIES, ROOT],
        3,
        |inside| {
            let path = path(inside, "directory")?;
            step("chroot", libc::SYS_chroot, &[path.as_ptr() as u64])?;
            Ok("changed".into())
        },
    ),
    drill(
        "raise_limits",
        "raises its own limit of descriptors (prlimit)",
        Aim::Limit,
        &[SECCOMP],
        1,
        |_| {
            let limit = [1u64 << 20, 1 << 20];
            step(
                "prlimit64",
                libc::SYS_prlimit64,
                &[0, libc::RLIMIT_NOFILE.into(), limit.as_ptr() as u64, 0],
            )?;
            Ok("raised".into())
        },
    ),
    drill(
        "host_name",
        "asks for the host's name (uname)",
        Aim::Text("/proc/sys/kernel/hostname"),
        &[SECCOMP, UTS],
        2,
        host_name,
    ),
];

fn unshare(flags: i32) -> Tried {
    step("unshare", libc::SYS_unshare, &[flags as u64])?;
    Ok("made".into())
}

fn host_name(_: &mut Inside<'_>) -> Tried {
    // `struct new_utsname`: six texts of 65 bytes; the second is the name.
    let mut names = [0u8; 390];
    step("uname", libc::SYS_uname, &[names.as_mut_ptr() as u64])?;
    let name = names[65..130].split(|byte| *byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}
