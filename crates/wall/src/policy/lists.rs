//! The lists themselves.

use syscalls::{aarch64, x86_64};

use super::{Allowed, COMPILER_INPUT, COMPILER_OUTPUT, Check, ProgramRights, Uses};
use crate::architecture::Architecture;
use crate::launcher::SETUP_FD;

const PROT_EXEC: u32 = libc::PROT_EXEC as u32;
const PRIVATE_FUTEX: u32 = 128;
/// What a worker's allocator maps: private, anonymous, nowhere in particular.
const ANONYMOUS: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32;
/// Flags that change nothing about what is mapped.
const HARMLESS: u32 = (libc::MAP_NORESERVE | libc::MAP_STACK) as u32;

/// A system call by its name, with its number on each architecture that has
/// it. A constant of this can't be misspelt.
#[derive(Clone, Copy)]
pub(super) struct Call {
    name: &'static str,
    x86_64: Option<i32>,
    aarch64: Option<i32>,
}

impl Call {
    fn number(self, architecture: Architecture) -> Option<i64> {
        match architecture {
            Architecture::X86_64 => self.x86_64,
            Architecture::Aarch64 => self.aarch64,
        }
        .map(i64::from)
    }
}

macro_rules! call {
    // Calls that only one has, or under another name.
    (poll) => {
        Call {
            name: "poll",
            x86_64: Some(x86_64::Sysno::poll as i32),
            aarch64: None,
        }
    };
    (newfstatat) => {
        Call {
            name: "newfstatat",
            x86_64: Some(x86_64::Sysno::newfstatat as i32),
            aarch64: Some(aarch64::Sysno::fstatat as i32),
        }
    };
    ($name:ident) => {
        Call {
            name: stringify!($name),
            x86_64: Some(x86_64::Sysno::$name as i32),
            aarch64: Some(aarch64::Sysno::$name as i32),
        }
    };
}

macro_rules! any {
    ($list:expr, $why:literal: $($name:ident)*) => { $( $list.add(call!($name), Vec::new(), $why); )* };
}
macro_rules! when {
    ($list:expr, $name:ident, $arguments:expr, $why:literal) => {
        $list.add(call!($name), $arguments, $why)
    };
}

/// A list in the making.
pub(super) struct List {
    architecture: Architecture,
    allowed: Vec<Allowed>,
}

impl List {
    pub(super) fn new(architecture: Architecture) -> Self {
        Self {
            architecture,
            allowed: Vec::new(),
        }
    }

    /// Allows a call with these alternatives, or with any arguments. Of two
    /// entries for one call the first stays, widened by the second.
    fn add(&mut self, call: Call, arguments: Vec<Vec<Check>>, why: &'static str) {
        let Some(number) = call.number(self.architecture) else {
            return;
        };
        match self.allowed.iter_mut().find(|entry| entry.number == number) {
            Some(entry) if entry.arguments.is_empty() || arguments.is_empty() => {
                entry.arguments.clear();
            }
            Some(entry) => {
                for alternative in arguments {
                    if !entry.arguments.contains(&alternative) {
                        entry.arguments.push(alternative);
                    }
                }
            }
            None => self.allowed.push(Allowed {
                name: call.name,
                number,
                arguments,
                why,
            }),
        }
    }

    /// Allows with any arguments what another list, which will be loaded
    /// later, allows with some.
    pub(super) fn later(&mut self, later: &Allowed) {
        if self
            .allowed
            .iter()
            .all(|entry| entry.number != later.number)
        {
            self.allowed.push(Allowed {
                arguments: Vec::new(),
                why: "used only later, where the running filter decides",
                ..later.clone()
            });
        }
    }

    pub(super) fn finish(mut self) -> Vec<Allowed> {
        self.allowed.sort_by_key(|entry| entry.name);
        self.allowed
    }
}

/// What every worker may do while it runs: wait for its bells, use memory that
/// it can't execute, and end.
pub(super) fn base(list: &mut List) {
    use Check::{Is, Masked};
    let operation = |operation: u32, flags: u32| vec![Masked(1, !flags, operation)];
    when!(
        list,
        futex,
        vec![operation(0, PRIVATE_FUTEX), operation(1, PRIVATE_FUTEX)],
        "FUTEX_WAIT and FUTEX_WAKE: the bells. Never FUTEX_REQUEUE, which could move the host's waiter"
    );
    when!(
        list,
        madvise,
        vec![vec![Is(2, libc::MADV_DONTNEED as u32)]],
        "MADV_DONTNEED: drop pages of a rolled-back call. Never MADV_REMOVE, which zeroes even a size-sealed file"
    );
    when!(
        list,
        mmap,
        vec![vec![
            Masked(2, PROT_EXEC, 0),
            Masked(3, !HARMLESS, ANONYMOUS)
        ]],
        "private anonymous memory for the allocator: not executable, at no fixed place, of no file"
    );
    when!(
        list,
        mprotect,
        vec![vec![Masked(2, PROT_EXEC, 0)]],
        "open and close chunks of tenant memory, or with the signal tracker pages: never executable"
    );
    any!(list, "give memory back": munmap);
    any!(list, "the allocator's heap, bounded by RLIMIT_DATA": brk);
    any!(list, "return from the fault handler": rt_sigreturn);
    any!(list, "a futex wait that a signal interrupted": restart_syscall);
    any!(list, "end": exit_group);
    when!(
        list,
        sendmsg,
        vec![vec![Is(0, SETUP_FD as u32)]],
        "hand this filter's listener to the host, as the last word on the set-up socket. Nothing that has the number later is a socket"
    );
    any!(list, "close the set-up socket, the listener, and what is open": close);
}

/// What a worker may do between exec and its lock: load code, arm itself, and
/// lock. It runs no guest code yet, but reads what hostile code has compiled.
pub(super) fn launch(list: &mut List) {
    any!(list, "load code and map memory": mmap mprotect munmap mremap madvise brk pread64 preadv read lseek fstat newfstatat statx);
    any!(list, "receive descriptors, hand over the userfaultfd and the listener": recvmsg sendmsg ppoll getsockopt userfaultfd ioctl);
    any!(list, "sort descriptors": fcntl dup dup3 close close_range fchdir chdir openat getcwd);
    any!(list, "handlers for the guest's traps": rt_sigaction rt_sigprocmask sigaltstack rt_sigreturn);
    any!(list, "the run time of Rust and libc": futex getrandom rseq set_robust_list set_tid_address gettid getpid getuid geteuid sched_getaffinity
        sched_yield prlimit64 membarrier restart_syscall clock_gettime clock_getres);
    any!(list, "put on the rest of the wall": prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self capget);
    any!(list, "say why it could not be set up": write);
    any!(list, "end": exit exit_group);
    any!(list, "wait for the set-up socket": poll);
}

/// A compiler, beside the base.
pub(super) fn compiler(list: &mut List) {
    when!(
        list,
        read,
        vec![vec![Check::Is(0, COMPILER_INPUT as u32)]],
        "read the module"
    );
    when!(
        list,
        write,
        vec![vec![Check::Is(0, COMPILER_OUTPUT as u32)]],
        "write the artefact"
    );
    // Read through the vDSO, unless the kernel's clock source can't be read from
    // user space (vdso(7)): HPET, or a time stamp counter found unstable.
    when!(
        list,
        clock_gettime,
        vec![vec![Check::Is(0, libc::CLOCK_MONOTONIC as u32)]],
        "time the compiler's passes, where the vDSO has no clock"
    );
}

/// A program, beside the base: traced with CPython going through every file
/// operation; see `lazaret_guest::program` for the trace by grant.
pub(super) fn program(list: &mut List, rights: ProgramRights) {
    use Check::Is;
    let stream = |fd: u32| vec![Is(0, fd)];
    let uses = |of: Uses| rights.uses.any(of);
    if uses(Uses::EXACT_CLOCKS) {
        any!(list, "clocks, where the vDSO has none": clock_gettime clock_getres);
    } else if uses(Uses::CLOCKS) {
        // Or the coarse clocks would be no more than a word.
        let coarse = || {
            [libc::CLOCK_REALTIME_COARSE, libc::CLOCK_MONOTONIC_COARSE]
                .map(|clock| vec![Is(0, clock.cast_unsigned())])
                .to_vec()
        };
        when!(
            list,
            clock_gettime,
            coarse(),
            "coarse clocks, where there is no vDSO"
        );
        when!(
            list,
            clock_getres,
            coarse(),
            "coarse clocks, where there is no vDSO"
        );
    }
    if uses(Uses::RANDOM) {
        any!(list, "random numbers": getrandom);
    }
    if uses(Uses::WAIT.with(Uses::READ).with(Uses::WRITE)) {
        any!(list, "wait for the standard streams, and for clocks at once": ppoll);
    }
    if uses(Uses::READ) {
        when!(list, read, vec![stream(0)], "read standard input");
    }
    if uses(Uses::WRITE) {
        when!(
            list,
            write,
            vec![stream(1), stream(2)],
            "write standard output and error"
        );
    }
    if !rights.directories {
        return;
    }
    if uses(Uses::PATHS) {
        any!(list, "find paths below granted directories, which Landlock and their detached mounts confine": openat openat2 readlinkat);
        // Where directories are renamed again and again meanwhile, openat2 gives
        // up with EAGAIN, and each component is looked up by itself.
        any!(list, "whether a directory on the way may be passed": faccessat faccessat2);
    }
    if uses(Uses::PATHS.with(Uses::STATUS)) {
        any!(list, "look at granted files": fstat newfstatat statx);
        when!(
            list,
            fcntl,
            vec![vec![Is(1, libc::F_GETFL as u32)]],
            "how is a file open. Never F_SETFL, F_DUPFD or locks"
        );
    }
    if uses(Uses::LIST) {
        any!(list, "list granted directories": getdents64);
    }
    // Whatever works on open files needs one.
    if uses(Uses::OPEN) {
        if uses(Uses::READ) {
            any!(list, "read granted files": read pread64);
        }
        if uses(Uses::WRITE) {
            any!(list, "write granted files": write);
        }
        any!(list, "find a place in granted files": lseek);
        if uses(Uses::ADVISE) {
            any!(list, "say how a file will be read": fadvise64);
        }
        if uses(Uses::SYNC) {
            any!(list, "put granted files on disk": fsync fdatasync);
        }
    }
    if rights.writable {
        writable(list, rights.uses);
    }
}

/// What a program needs besides for directories that it may write.
fn writable(list: &mut List, uses: Uses) {
    let uses = |of: Uses| uses.any(of);
    if uses(Uses::OPEN) && uses(Uses::WRITE) {
        any!(list, "write at a place in granted files": pwrite64 pwritev2);
    }
    if uses(Uses::OPEN) && uses(Uses::RESIZE) {
        any!(list, "set the size of granted files": ftruncate);
    }
    if uses(Uses::TIMES) {
        any!(list, "set times of granted files": utimensat);
    }
    if uses(Uses::MAKE_DIRECTORY) {
        any!(list, "make directories": mkdirat);
    }
    if uses(Uses::REMOVE) {
        any!(list, "remove granted files": unlinkat);
    }
    if uses(Uses::RENAME) {
        any!(list, "rename granted files": renameat);
    }
    if uses(Uses::SYMLINK) {
        any!(list, "make symbolic links": symlinkat);
    }
    if uses(Uses::LINK) {
        when!(
            list,
            linkat,
            vec![vec![Check::Is(4, 0)]],
            "link a granted file; never by descriptor (AT_EMPTY_PATH)"
        );
    }
}
