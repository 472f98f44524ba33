//! Getting out of a granted directory, or doing more in it than was granted.
//! For programs: tenants have no directories.

use std::ffi::CStr;

use lazaret_wall::Layer;

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;
use crate::system_call::system_call;

/// Landlock, and a detached mount from which `..` leads nowhere.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Landlock);

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::native(
        "open_absolute",
        STOPPED_BY,
        Expected::Reply("refused"),
        |_| tried(open_at(libc::AT_FDCWD, c"/etc/passwd", 0)),
    ),
    Attack::native("open_proc", STOPPED_BY, Expected::Reply("refused"), |_| {
        tried(open_at(libc::AT_FDCWD, c"/proc/self/mem", libc::O_RDWR))
    }),
    Attack::native("open_root", STOPPED_BY, Expected::Reply("refused"), |_| {
        tried(open_at(libc::AT_FDCWD, c"/", libc::O_DIRECTORY))
    }),
    Attack::native(
        "open_parent",
        STOPPED_BY,
        Expected::Reply("refused"),
        |_| below(c"../outside", 0),
    ),
    Attack::native(
        "open_far_parent",
        STOPPED_BY,
        Expected::Reply("refused"),
        |_| below(c"../../../../../../../../etc/passwd", 0),
    ),
    Attack::native(
        "follow_link_out",
        STOPPED_BY,
        Expected::Reply("refused"),
        |_| below(c"link-out", 0),
    ),
    Attack::native(
        "follow_relative_link_out",
        STOPPED_BY,
        Expected::Reply("refused"),
        |_| below(c"relative-link-out", 0),
    ),
    Attack::native("make_file", STOPPED_BY, Expected::Reply("refused"), |_| {
        below(c"made", libc::O_CREAT | libc::O_WRONLY)
    }),
    Attack::native("write_file", STOPPED_BY, Expected::Reply("refused"), |_| {
        below(c"inside", libc::O_WRONLY | libc::O_TRUNC)
    }),
    Attack::native("read_file", STOPPED_BY, Expected::Reply("reached"), |_| {
        below(c"inside", 0)
    }),
    Attack::native(
        "make_link_out",
        STOPPED_BY,
        Expected::Reply("refused"),
        make_link_out,
    ),
    Attack::native(
        "race_links",
        STOPPED_BY,
        Expected::Reply("inside"),
        race_links,
    ),
];

/// `openat`.
pub(super) fn open_at(directory: i32, path: &CStr, flags: i32) -> i64 {
    // SAFETY: a NUL-terminated path.
    unsafe {
        system_call(
            libc::SYS_openat,
            [
                directory as u64,
                path.as_ptr() as u64,
                (flags | libc::O_CLOEXEC) as u64,
                0o600,
                0,
                0,
            ],
        )
    }
}

/// The first descriptor that is a directory.
pub fn directory() -> Option<i32> {
    (3..64).find(|fd| {
        let opened = open_at(*fd, c".", libc::O_DIRECTORY);
        // SAFETY: opened just now, or refused, which closes nothing.
        unsafe { system_call(libc::SYS_close, [opened as u64, 0, 0, 0, 0, 0]) };
        opened >= 0
    })
}

fn tried(result: i64) -> String {
    if result < 0 {
        format!("refused {}", -result)
    } else {
        "reached".into()
    }
}

fn below(path: &CStr, flags: i32) -> String {
    match directory() {
        Some(directory) => tried(open_at(directory, path, flags)),
        None => "there is no directory".into(),
    }
}

/// Makes a link to the outside, in a directory that may be written, and
/// follows it.
fn make_link_out(_: &mut Inside<'_>) -> String {
    let Some(directory) = directory() else {
        return "there is no directory".into();
    };
    // SAFETY: two NUL-terminated paths.
    let made = unsafe {
        system_call(
            libc::SYS_symlinkat,
            [
                c"/etc/passwd".as_ptr() as u64,
                directory as u64,
                c"made-link".as_ptr() as u64,
                0,
                0,
                0,
            ],
        )
    };
    if made < 0 {
        return format!("the link could not be made: {}", -made);
    }
    tried(open_at(directory, c"made-link", 0))
}

/// Opens `dir/file` by several paths while somebody outside swaps `dir` for a link
/// that leads out, and counts what it read: `inside N outside M refused R`. Not as
/// the engine opens, by openat2 and its RESOLVE_BENEATH, but so that the kernel
/// follows whatever there is.
fn race_links(inside: &mut Inside<'_>) -> String {
    let Some(directory) = directory() else {
        return "there is no directory".into();
    };
    let (mut within, mut outside, mut refused) = (0, 0, 0);
    for _ in 0..inside.number() {
        for path in [
            c"dir/file",
            c"dir/../dir/file",
            c"dir/../outside/file",
            c"dir/./.././dir/file",
        ] {
            let opened = open_at(directory, path, 0);
            if opened < 0 {
                refused += 1;
                continue;
            }
            let mut byte = 0u8;
            let (file, into) = (opened as u64, &raw mut byte as u64);
            // SAFETY: one byte on this stack, and a descriptor of this function's.
            unsafe {
                system_call(libc::SYS_read, [file, into, 1, 0, 0, 0]);
                system_call(libc::SYS_close, [file, 0, 0, 0, 0, 0]);
            }
            match byte {
                b'i' => within += 1,
                _ => outside += 1,
            }
        }
    }
    format!("inside {within} outside {outside} refused {refused}")
}
