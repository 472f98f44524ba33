//! Another program in the worker's place.

use std::ffi::CStr;

use lazaret_wall::Layer;

use super::files::{path, write};
use crate::decoys::program::PROGRAM;
use crate::drill::{Aim, Barrier, Drill, Stand, Tried, step};

const SECCOMP: Barrier = Barrier::Wall(Layer::Seccomp);
const LANDLOCK: Barrier = Barrier::Wall(Layer::Landlock);
const ROOT: Barrier = Barrier::Wall(Layer::EmptyRoot);

/// The drills. The decoy program waits for ever.
pub const DRILLS: &[Drill] = &[
    Drill {
        name: "execute_file",
        tries: "executes a file that everybody may execute",
        stand: Stand::Tenant,
        aim: Aim::Program,
        barriers: &[SECCOMP, LANDLOCK, ROOT],
        at_least: 3,
        run: |inside| execute(&path(inside, "program")?),
    },
    Drill {
        name: "execute_setuid_file",
        tries: "executes a file that runs as root whoever executes it",
        stand: Stand::Tenant,
        aim: Aim::ProgramAsRoot,
        barriers: &[
            SECCOMP,
            LANDLOCK,
            ROOT,
            Barrier::Wall(Layer::NoNewPrivs),
            Barrier::Wall(Layer::UserNamespace),
        ],
        // Without `no_new_privs` there is no filter and no Landlock, and without a
        // user namespace no empty root: these can't be shown alone.
        at_least: 2,
        run: |inside| execute(&path(inside, "setuid")?),
    },
    Drill {
        name: "execute_memory",
        tries: "writes a program to a file in memory and executes it (memfd_create, execveat)",
        stand: Stand::Tenant,
        aim: Aim::Program,
        barriers: &[SECCOMP, Barrier::Wall(Layer::Rlimits)],
        at_least: 2,
        run: |_| {
            let fd = step(
                "memfd_create",
                libc::SYS_memfd_create,
                &[c"program".as_ptr() as u64, libc::MFD_CLOEXEC.into()],
            )?;
            write(fd, PROGRAM)?;
            let arguments = [c"program".as_ptr(), std::ptr::null()];
            step(
                "execveat",
                libc::SYS_execveat,
                &[
                    fd,
                    c"".as_ptr() as u64,
                    arguments.as_ptr() as u64,
                    0,
                    libc::AT_EMPTY_PATH as u64,
                ],
            )?;
            Ok("executed".into())
        },
    },
];

fn execute(path: &CStr) -> Tried {
    let arguments = [path.as_ptr(), std::ptr::null()];
    step(
        "execve",
        libc::SYS_execve,
        &[path.as_ptr() as u64, arguments.as_ptr() as u64, 0],
    )?;
    Ok("executed".into())
}
