//! Out of a directory that was granted to a program, or more in it than granted.

use lazaret_wall::Layer;

use super::files::{contents, nul, open, path};
use crate::attacks::granted::directory;
use crate::drill::{Aim, Barrier, Drill, Refusal, Stand, Tried, lacks, step};
use crate::inside::Inside;

const LANDLOCK: Barrier = Barrier::Wall(Layer::Landlock);
const ROOT: Barrier = Barrier::Wall(Layer::EmptyRoot);
/// A directory is granted as a mount of its own.
const MOUNT: Barrier = Barrier::Wall(Layer::MountNamespace);

/// How often a race is run.
const ROUNDS: usize = 3000;

const fn drill(
    name: &'static str,
    tries: &'static str,
    stand: Stand,
    aim: Aim,
    barriers: &'static [Barrier],
    run: fn(&mut Inside<'_>) -> Tried,
) -> Drill {
    Drill {
        name,
        tries,
        stand,
        aim,
        barriers,
        at_least: 1,
        run,
    }
}

/// The drills. What is granted has `inside` and, from the host's side, `swap`,
/// which is a directory at one time and a link to the outside at another.
pub const DRILLS: &[Drill] = &[
    drill(
        "granted_parent",
        "reads a file beside the directory that it was granted, by `..`",
        Stand::Reader,
        Aim::Secret,
        &[LANDLOCK, MOUNT],
        |_| at("../outside", libc::O_RDONLY).and_then(contents),
    ),
    drill(
        "granted_link_out",
        "follows a link in its directory that leads to a file outside by `..`",
        Stand::Reader,
        Aim::Secret,
        &[LANDLOCK, MOUNT],
        |_| at("relative", libc::O_RDONLY).and_then(contents),
    ),
    drill(
        "granted_absolute_path",
        "opens a file outside by its whole path, with a filter that allows opening",
        Stand::Reader,
        Aim::Secret,
        &[LANDLOCK, ROOT],
        |inside| contents(open(&path(inside, "file")?, libc::O_RDONLY)?),
    ),
    drill(
        "granted_own_link_out",
        "makes a link to a file outside in its directory, and follows it",
        Stand::Writer,
        Aim::Secret,
        &[LANDLOCK, ROOT],
        |inside| {
            let target = path(inside, "file")?;
            let made = nul("made")?;
            step(
                "symlinkat",
                libc::SYS_symlinkat,
                &[
                    target.as_ptr() as u64,
                    granted()? as u64,
                    made.as_ptr() as u64,
                ],
            )?;
            at("made", libc::O_RDONLY).and_then(contents)
        },
    ),
    drill(
        "granted_read_only",
        "writes in a directory that it was granted to read only",
        Stand::Reader,
        Aim::GrantedChanged,
        &[LANDLOCK, MOUNT, Barrier::Wall(Layer::Rlimits)],
        |_| super::files::write(at("inside", libc::O_WRONLY)?, b"overwritten"),
    ),
    drill(
        "granted_link_race",
        "opens a path in its directory over and over while a link to the outside takes turns with a directory in the middle of it",
        Stand::Reader,
        Aim::Secret,
        &[LANDLOCK, MOUNT],
        |_| {
            let mut last = lacks("openat");
            for _ in 0..ROUNDS {
                match at("swap/outside", libc::O_RDONLY) {
                    Ok(fd) => return contents(fd),
                    Err(refusal) => {
                        // The turn of the directory, in which it isn't.
                        if refusal.errno != libc::ENOENT {
                            last = refusal;
                        }
                    }
                }
            }
            Err(last)
        },
    ),
    drill(
        "granted_proc",
        "reads another process's command line in /proc, with a filter that allows opening",
        Stand::Reader,
        Aim::Secret,
        &[LANDLOCK, ROOT],
        |inside| {
            let path = format!("/proc/{}/cmdline", inside.word("pid"));
            contents(open(&nul(&path)?, libc::O_RDONLY)?)
        },
    ),
];

fn granted() -> Result<i32, Refusal> {
    directory().ok_or_else(|| lacks("a granted directory"))
}

/// Opens a path in the granted directory.
fn at(name: &str, flags: i32) -> Result<u64, Refusal> {
    let name = nul(name)?;
    step(
        "openat",
        libc::SYS_openat,
        &[
            granted()? as u64,
            name.as_ptr() as u64,
            (flags | libc::O_CLOEXEC) as u64,
        ],
    )
}
