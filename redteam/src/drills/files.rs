//! Files of the host's, by their paths.

use std::ffi::CString;

use lazaret_wall::Layer;

use crate::drill::{Aim, Barrier, Drill, Refusal, Stand, Tried, lacks, step};
use crate::inside::Inside;

const SECCOMP: Barrier = Barrier::Wall(Layer::Seccomp);
const LANDLOCK: Barrier = Barrier::Wall(Layer::Landlock);
const ROOT: Barrier = Barrier::Wall(Layer::EmptyRoot);
const LIMITS: Barrier = Barrier::Wall(Layer::Rlimits);

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

const READ: i32 = libc::O_RDONLY;
const WRITE: i32 = libc::O_WRONLY;

/// The drills.
pub const DRILLS: &[Drill] = &[
    drill(
        "read_file",
        "reads a file that everybody may read",
        Aim::Secret,
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |inside| {
            let fd = open(&path(inside, "file")?, READ)?;
            contents(fd)
        },
    ),
    drill(
        "write_file",
        "writes to a file that everybody may write",
        Aim::FileChanged,
        &[SECCOMP, LANDLOCK, ROOT, LIMITS],
        3,
        |inside| {
            let fd = open(&path(inside, "file")?, WRITE)?;
            write(fd, b"overwritten")
        },
    ),
    drill(
        "truncate_file",
        "cuts a file that everybody may write, without opening it",
        Aim::FileChanged,
        &[SECCOMP, LANDLOCK, ROOT],
        2,
        |inside| {
            let path = path(inside, "file")?;
            step("truncate", libc::SYS_truncate, &[path.as_ptr() as u64, 0])?;
            Ok("cut".into())
        },
    ),
    drill(
        "create_file",
        "makes a file in a directory that everybody may write",
        Aim::Entry("created"),
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |inside| {
            open(&below(inside, "created")?, WRITE | libc::O_CREAT)?;
            Ok("made".into())
        },
    ),
    drill(
        "remove_file",
        "removes a file from a directory that everybody may write",
        Aim::Gone("removable"),
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |inside| {
            let path = below(inside, "removable")?;
            step("unlink", libc::SYS_unlink, &[path.as_ptr() as u64])?;
            Ok("removed".into())
        },
    ),
    drill(
        "rename_file",
        "moves a file away in a directory that everybody may write",
        Aim::Gone("removable"),
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |inside| {
            let (from, to) = (below(inside, "removable")?, below(inside, "moved")?);
            step(
                "rename",
                libc::SYS_rename,
                &[from.as_ptr() as u64, to.as_ptr() as u64],
            )?;
            Ok("moved".into())
        },
    ),
    drill(
        "make_link",
        "makes a symbolic link in a directory that everybody may write",
        Aim::Entry("link"),
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |inside| {
            let at = below(inside, "link")?;
            step(
                "symlink",
                libc::SYS_symlink,
                &[c"/etc/passwd".as_ptr() as u64, at.as_ptr() as u64],
            )?;
            Ok("made".into())
        },
    ),
    drill(
        "make_pipe",
        "makes a named pipe in a directory that everybody may write",
        Aim::Entry("pipe"),
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |inside| make_node(inside, "pipe", libc::S_IFIFO, 0),
    ),
    drill(
        "make_device",
        "makes the device node of /dev/null in a directory that everybody may write",
        Aim::Entry("device"),
        &[SECCOMP, LANDLOCK, ROOT],
        1,
        |inside| make_node(inside, "device", libc::S_IFCHR, libc::makedev(1, 3)),
    ),
    drill(
        "change_mode",
        "lets everybody execute a file of its own user's",
        Aim::ModeChanged,
        &[SECCOMP, ROOT],
        2,
        |inside| {
            let path = path(inside, "own")?;
            step("chmod", libc::SYS_chmod, &[path.as_ptr() as u64, 0o777])?;
            Ok("changed".into())
        },
    ),
    drill(
        "open_device",
        "opens /dev/null for writing",
        Aim::HoldsToWrite("/dev/null"),
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |_| opened(c"/dev/null", WRITE),
    ),
    drill(
        "kernel_memory_device",
        "opens /dev/kmsg, the kernel's log",
        Aim::Holds("/dev/kmsg"),
        &[SECCOMP, LANDLOCK, ROOT],
        1,
        |_| opened(c"/dev/kmsg", READ),
    ),
    drill(
        "proc_boot_id",
        "reads in /proc which boot of which machine this is",
        Aim::Text("/proc/sys/kernel/random/boot_id"),
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |_| contents(open(c"/proc/sys/kernel/random/boot_id", READ)?),
    ),
    drill(
        "proc_command_line",
        "reads in /proc what another process was started with",
        Aim::Secret,
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |inside| {
            let path = format!("/proc/{}/cmdline", inside.word("pid"));
            contents(open(&nul(&path)?, READ)?)
        },
    ),
    drill(
        "sys_processors",
        "reads in /sys which processors the machine has",
        Aim::Text("/sys/devices/system/cpu/possible"),
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |_| contents(open(c"/sys/devices/system/cpu/possible", READ)?),
    ),
    drill(
        "core_pattern",
        "opens /proc/sys/kernel/core_pattern for writing, by which the host's kernel would run a program of the attacker's",
        Aim::HoldsToWrite("/proc/sys/kernel/core_pattern"),
        &[SECCOMP, LANDLOCK, ROOT],
        2,
        |_| opened(c"/proc/sys/kernel/core_pattern", WRITE),
    ),
    drill(
        "uevent_helper",
        "opens /sys/kernel/uevent_helper for writing, the program that the kernel runs for new devices",
        Aim::HoldsToWrite("/sys/kernel/uevent_helper"),
        &[SECCOMP, LANDLOCK, ROOT],
        1,
        |_| opened(c"/sys/kernel/uevent_helper", WRITE),
    ),
    drill(
        "release_agent",
        "opens a release_agent for writing, the program that the kernel runs for an empty control group",
        Aim::HoldsToWrite("/sys/fs/cgroup"),
        &[SECCOMP, LANDLOCK, ROOT],
        1,
        |inside| opened(&path(inside, "release_agent")?, WRITE),
    ),
    drill(
        "overwrite_own_executable",
        "opens the worker's executable for writing through /proc/self/exe (CVE-2019-5736), and again through a descriptor of it",
        Aim::HoldsToWrite("/"),
        &[SECCOMP, LANDLOCK, ROOT],
        2,
        |_| {
            if let Ok(text) = opened(c"/proc/self/exe", WRITE) {
                return Ok(text);
            }
            let fd = open(c"/proc/self/exe", libc::O_PATH)?;
            opened(&nul(&format!("/proc/self/fd/{fd}"))?, WRITE)
        },
    ),
    drill(
        "overwrite_host_executable",
        "opens the host's executable for writing through /proc/PID/exe",
        Aim::HoldsToWrite("/"),
        &[SECCOMP, LANDLOCK, ROOT],
        2,
        |inside| {
            let path = format!("/proc/{}/exe", inside.word("host"));
            opened(&nul(&path)?, WRITE)
        },
    ),
    drill(
        "own_memory_file",
        "opens /proc/self/mem for writing, by which code can be changed whatever its protection",
        Aim::HoldsToWrite("/proc/"),
        &[SECCOMP, LANDLOCK, ROOT],
        3,
        |_| opened(c"/proc/self/mem", libc::O_RDWR),
    ),
    drill(
        "shared_file_by_mapping",
        "opens the file shared with the host for writing through /proc/self/map_files, to cut it",
        Aim::HoldsToWrite("/memfd:"),
        &[SECCOMP, LANDLOCK, ROOT],
        2,
        |inside| {
            let from = inside.shared().address();
            let to = from + lazaret_wire::layout::SIZE;
            let path = format!("/proc/self/map_files/{from:x}-{to:x}");
            opened(&nul(&path)?, libc::O_RDWR)
        },
    ),
    drill(
        "file_by_handle",
        "opens a file by its handle, past all directories (open_by_handle_at)",
        Aim::Secret,
        &[SECCOMP, LANDLOCK, ROOT],
        2,
        by_handle,
    ),
    drill(
        "watch_file",
        "watches what others do to a file (inotify)",
        Aim::Holds("anon_inode:inotify"),
        &[SECCOMP, ROOT],
        2,
        |inside| {
            let path = path(inside, "file")?;
            let fd = step(
                "inotify_init1",
                libc::SYS_inotify_init1,
                &[libc::IN_CLOEXEC as u64],
            )?;
            let watched = step(
                "inotify_add_watch",
                libc::SYS_inotify_add_watch,
                &[fd, path.as_ptr() as u64, libc::IN_OPEN.into()],
            );
            if watched.is_err() {
                let _ = step("close", libc::SYS_close, &[fd]);
            }
            watched.map(|_| "watching".into())
        },
    ),
];

/// Text as the kernel takes paths.
pub(super) fn nul(text: &str) -> Result<CString, Refusal> {
    CString::new(text).map_err(|_| lacks("a path"))
}

/// The path that the argument names.
pub(super) fn path(inside: &Inside<'_>, name: &str) -> Result<CString, Refusal> {
    match inside.word(name) {
        "" => Err(lacks("a path")),
        path => nul(path),
    }
}

/// A path in the decoy directory.
pub(super) fn below(inside: &Inside<'_>, name: &str) -> Result<CString, Refusal> {
    nul(&format!("{}/{name}", inside.word("directory")))
}

/// Opens a path.
pub(super) fn open(path: &std::ffi::CStr, flags: i32) -> Result<u64, Refusal> {
    step(
        "openat",
        libc::SYS_openat,
        &[
            libc::AT_FDCWD as u64,
            path.as_ptr() as u64,
            (flags | libc::O_CLOEXEC) as u64,
            0o600,
        ],
    )
}

/// Opens a path and keeps the descriptor, to be seen.
fn opened(path: &std::ffi::CStr, flags: i32) -> Tried {
    open(path, flags).map(|fd| format!("descriptor {fd}"))
}

/// What a descriptor gives at once.
pub(super) fn contents(fd: u64) -> Tried {
    let mut bytes = vec![0u8; 4096];
    let length = step(
        "read",
        libc::SYS_read,
        &[fd, bytes.as_mut_ptr() as u64, bytes.len() as u64],
    )?;
    bytes.truncate(length as usize);
    Ok(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

/// Writes bytes.
pub(super) fn write(fd: u64, bytes: &[u8]) -> Tried {
    step(
        "write",
        libc::SYS_write,
        &[fd, bytes.as_ptr() as u64, bytes.len() as u64],
    )?;
    Ok("written".into())
}

fn make_node(inside: &Inside<'_>, name: &str, kind: u32, device: u64) -> Tried {
    let path = below(inside, name)?;
    step(
        "mknod",
        libc::SYS_mknod,
        &[path.as_ptr() as u64, (kind | 0o666).into(), device],
    )?;
    Ok("made".into())
}

/// The handle is the decoy's, as the host got it by name_to_handle_at(2): eight
/// bytes of length and type, then the handle.
fn by_handle(inside: &mut Inside<'_>) -> Tried {
    let text = inside.word("handle").as_bytes();
    let mut handle: Vec<u8> = text
        .chunks_exact(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    if handle.len() < 8 {
        return Err(lacks("a handle"));
    }
    let mount = open(&path(inside, "directory")?, libc::O_DIRECTORY)?;
    let fd = step(
        "open_by_handle_at",
        libc::SYS_open_by_handle_at,
        &[mount, handle.as_mut_ptr() as u64, READ as u64],
    )?;
    contents(fd)
}
