//! Which system calls a worker may make, with which arguments, and why.
//!
//! One function, [`policy`], computes the list from what the worker is for and
//! what it was granted. The filter is compiled from it
//! ([`crate::layers::seccomp`]) and `lazaret audit` prints it, so what is
//! printed is what holds.

use serde::Serialize;

/// A check of one argument (counted from 0). It looks at the low 32 bits: the
/// kernel takes `int` and `unsigned int` parameters from there, whatever the
/// upper half holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The 32-bit argument equals.
    Is(u8, u32),
    /// The 32-bit argument, masked, equals: `argument & mask == value`.
    Masked(u8, u32, u32),
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is(argument, value) => write!(f, "arg{argument} = {value:#x}"),
            Self::Masked(argument, mask, 0) => write!(f, "arg{argument} has none of {mask:#x}"),
            Self::Masked(argument, mask, value) => {
                write!(f, "arg{argument} & {mask:#x} = {value:#x}")
            }
        }
    }
}

/// One allowed system call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// Its name.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: i64,
    /// Alternatives, each a list of checks that must all hold. Empty: any
    /// arguments.
    pub arguments: Vec<Vec<Check>>,
    /// What the worker needs it for.
    pub why: &'static str,
}

/// What a program was granted that needs system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ProgramGrants {
    /// It has directories.
    pub directories: bool,
    /// It may write in at least one of them.
    pub writable: bool,
}

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Any worker, from exec until it is locked.
    Launch,
    /// A tenant's worker.
    Tenant,
    /// A compiler.
    Compiler,
    /// A program.
    Program(ProgramGrants),
}

/// A list of allowed system calls. Any other kills the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// What it is for.
    pub kind: Kind,
    /// What is allowed.
    pub allowed: Vec<Allowed>,
}

impl Policy {
    /// The entry of a system call, if it is allowed at all.
    pub fn find(&self, number: i64) -> Option<&Allowed> {
        self.allowed.iter().find(|allowed| allowed.number == number)
    }
}

/// A system call that the kernel answers before it asks any filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Unfiltered {
    /// Its name.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: i64,
    /// What it does when a worker calls it.
    pub effect: &'static str,
}

/// What no filter can refuse (`seccomp_uprobe_exception`, kernel:
/// `kernel/seccomp.c`): calls that a tracer's probes make in a traced process.
/// A kernel that doesn't know them kills the worker, as for any other.
#[cfg(target_arch = "x86_64")]
pub const UNFILTERED: &[Unfiltered] = &[
    Unfiltered {
        name: "uretprobe",
        number: 335,
        effect: "SIGILL: it was not called from a return probe's trampoline (arch/x86/kernel/uprobes.c)",
    },
    Unfiltered {
        name: "uprobe",
        number: 336,
        effect: "ENXIO: it was not called from a probe's trampoline (arch/x86/kernel/uprobes.c)",
    },
];
/// What no filter can refuse: nothing on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub const UNFILTERED: &[Unfiltered] = &[];

const PROT_EXEC: u32 = libc::PROT_EXEC as u32;
const PRIVATE_FUTEX: u32 = 128;
/// What a worker's allocator maps: private, anonymous, nowhere in particular.
const ANONYMOUS: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32;
/// Flags that change nothing about what is mapped.
const HARMLESS: u32 = (libc::MAP_NORESERVE | libc::MAP_STACK) as u32;

/// The descriptors of a compiler: it reads the module from one and writes the
/// artefact to the other.
pub const COMPILER_INPUT: i32 = 0;
/// See [`COMPILER_INPUT`].
pub const COMPILER_OUTPUT: i32 = 1;

struct List(Vec<Allowed>);

impl List {
    fn any(&mut self, name: &'static str, number: i64, why: &'static str) {
        self.when(name, number, Vec::new(), why);
    }

    fn when(
        &mut self,
        name: &'static str,
        number: i64,
        arguments: Vec<Vec<Check>>,
        why: &'static str,
    ) {
        self.0.push(Allowed {
            name,
            number,
            arguments,
            why,
        });
    }
}

macro_rules! any {
    ($list:expr, $why:literal: $($name:ident)*) => { $( $list.any(stringify!($name), number::$name, $why); )* };
}
macro_rules! when {
    ($list:expr, $name:ident, $arguments:expr, $why:literal) => {
        $list.when(stringify!($name), number::$name, $arguments, $why)
    };
}

/// System call numbers under their plain names.
#[allow(non_upper_case_globals)]
mod number {
    macro_rules! numbers {
        ($($name:ident = $value:ident,)*) => { $(pub const $name: i64 = libc::$value;)* };
    }
    numbers! {
        brk = SYS_brk, chdir = SYS_chdir, capget = SYS_capget, clock_getres = SYS_clock_getres,
        clock_gettime = SYS_clock_gettime, close = SYS_close,
        close_range = SYS_close_range, dup = SYS_dup, dup3 = SYS_dup3,

        exit = SYS_exit, exit_group = SYS_exit_group,
        faccessat = SYS_faccessat, faccessat2 = SYS_faccessat2, fadvise64 = SYS_fadvise64,
        fchdir = SYS_fchdir, fcntl = SYS_fcntl, fdatasync = SYS_fdatasync, fstat = SYS_fstat,
        fsync = SYS_fsync, ftruncate = SYS_ftruncate, futex = SYS_futex,
        getcwd = SYS_getcwd, getdents64 = SYS_getdents64, geteuid = SYS_geteuid, getpid = SYS_getpid, getrandom = SYS_getrandom,
        gettid = SYS_gettid, getuid = SYS_getuid, ioctl = SYS_ioctl, landlock_add_rule = SYS_landlock_add_rule,
        landlock_create_ruleset = SYS_landlock_create_ruleset, landlock_restrict_self = SYS_landlock_restrict_self,
        linkat = SYS_linkat, lseek = SYS_lseek, madvise = SYS_madvise, mkdirat = SYS_mkdirat, mmap = SYS_mmap,
        mprotect = SYS_mprotect, mremap = SYS_mremap, munmap = SYS_munmap,
        openat = SYS_openat, openat2 = SYS_openat2, ppoll = SYS_ppoll, prctl = SYS_prctl, pread64 = SYS_pread64,
        preadv = SYS_preadv,
        prlimit64 = SYS_prlimit64, pwrite64 = SYS_pwrite64, pwritev2 = SYS_pwritev2, read = SYS_read, readlinkat = SYS_readlinkat,
        recvmsg = SYS_recvmsg, renameat = SYS_renameat, restart_syscall = SYS_restart_syscall,
        rseq = SYS_rseq, rt_sigaction = SYS_rt_sigaction, rt_sigprocmask = SYS_rt_sigprocmask,
        rt_sigreturn = SYS_rt_sigreturn, sched_getaffinity = SYS_sched_getaffinity, sched_yield = SYS_sched_yield,
        seccomp = SYS_seccomp, sendmsg = SYS_sendmsg, set_robust_list = SYS_set_robust_list, set_tid_address = SYS_set_tid_address,
        sigaltstack = SYS_sigaltstack, statx = SYS_statx, symlinkat = SYS_symlinkat,
        unlinkat = SYS_unlinkat,
        userfaultfd = SYS_userfaultfd, utimensat = SYS_utimensat, write = SYS_write,
        getsockopt = SYS_getsockopt, membarrier = SYS_membarrier, newfstatat = SYS_newfstatat,
    }
    #[cfg(target_arch = "x86_64")]
    numbers! {
        poll = SYS_poll,

    }
}

/// What every worker may do while it runs: wait for its bells, use memory that
/// it can't execute, and end.
fn base(list: &mut List) {
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
}

/// What a worker may do between exec and its lock: load code, arm itself, and
/// lock. It runs no guest code yet, but reads what hostile code has compiled.
fn launch(list: &mut List) {
    any!(list, "load code and map memory": mmap mprotect munmap mremap madvise brk pread64 preadv read lseek fstat newfstatat statx);
    any!(list, "receive descriptors, hand over the userfaultfd": recvmsg sendmsg ppoll getsockopt userfaultfd ioctl);
    any!(list, "sort descriptors": fcntl dup dup3 close close_range fchdir chdir openat getcwd);
    any!(list, "handlers for the guest's traps": rt_sigaction rt_sigprocmask sigaltstack rt_sigreturn);
    any!(list, "the run time of Rust and libc": futex getrandom rseq set_robust_list set_tid_address gettid getpid getuid geteuid sched_getaffinity
        sched_yield prlimit64 membarrier restart_syscall clock_gettime clock_getres);
    any!(list, "put on the rest of the wall": prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self capget);
    any!(list, "say why it could not be set up": write);
    any!(list, "end": exit exit_group);
    #[cfg(target_arch = "x86_64")]
    any!(list, "wait for the set-up socket": poll);
}

/// A program: traced with CPython going through every file operation; see
/// `lazaret_guest::program` for the trace by grant.
fn program(list: &mut List, grants: ProgramGrants) {
    use Check::Is;
    let stream = |fd: u32| vec![Is(0, fd)];
    any!(list, "clocks, where the vDSO has none": clock_gettime clock_getres);
    any!(list, "random numbers": getrandom);
    any!(list, "wait for standard input and clocks at once": ppoll);
    if !grants.directories {
        when!(list, read, vec![stream(0)], "read standard input");
        when!(
            list,
            write,
            vec![stream(1), stream(2)],
            "write standard output and error"
        );
        any!(list, "close a stream, or the code when it ends": close);
        return;
    }
    any!(list, "read standard input and granted files": read pread64 lseek);
    any!(list, "write standard output, error and granted files": write);
    any!(list, "open below granted directories, which Landlock and their detached mounts confine": openat openat2 close);
    any!(list, "look at granted files": fstat newfstatat statx getdents64 readlinkat fadvise64 fsync fdatasync);
    when!(
        list,
        fcntl,
        vec![vec![Is(1, libc::F_GETFL as u32)]],
        "how is a file open. Never F_SETFL, F_DUPFD or locks"
    );
    if grants.writable {
        any!(list, "write granted files": pwrite64 pwritev2 ftruncate utimensat);
        any!(list, "change granted directories": mkdirat unlinkat renameat symlinkat faccessat faccessat2);
        when!(
            list,
            linkat,
            vec![vec![Is(4, 0)]],
            "link a granted file; never by descriptor (AT_EMPTY_PATH)"
        );
    }
}

/// The list for a kind of worker.
pub fn policy(kind: Kind) -> Policy {
    let mut list = List(Vec::new());
    match kind {
        Kind::Launch => {
            launch(&mut list);
            // Filters stack, and every one of them must agree: what some kind
            // of worker may do later has to pass here too.
            let widest = Kind::Program(ProgramGrants {
                directories: true,
                writable: true,
            });
            for later in [widest, Kind::Compiler, Kind::Tenant]
                .into_iter()
                .flat_map(|kind| policy(kind).allowed)
            {
                if list.0.iter().all(|entry| entry.number != later.number) {
                    list.any(
                        later.name,
                        later.number,
                        "used only later, where the running filter decides",
                    );
                }
            }
        }
        Kind::Tenant => base(&mut list),
        Kind::Compiler => {
            base(&mut list);
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
        }
        Kind::Program(grants) => {
            base(&mut list);
            program(&mut list, grants);
        }
    }
    let mut allowed = list.0;
    allowed.sort_by_key(|entry| entry.name);
    Policy { kind, allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<Kind> {
        let mut kinds = vec![Kind::Tenant, Kind::Compiler];
        for (directories, writable) in [(false, false), (true, false), (true, true)] {
            kinds.push(Kind::Program(ProgramGrants {
                directories,
                writable,
            }));
        }
        kinds
    }

    #[test]
    fn the_running_filter_only_narrows() {
        let launch = policy(Kind::Launch);
        for kind in kinds() {
            for allowed in policy(kind).allowed {
                let wider = launch.find(allowed.number).expect(allowed.name);
                assert!(wider.arguments.is_empty(), "{}", allowed.name);
            }
        }
    }

    #[test]
    fn a_tenant_has_the_fewest_calls() {
        let names: Vec<&str> = policy(Kind::Tenant)
            .allowed
            .iter()
            .map(|allowed| allowed.name)
            .collect();
        assert_eq!(
            names,
            [
                "brk",
                "exit_group",
                "futex",
                "madvise",
                "mmap",
                "mprotect",
                "munmap",
                "restart_syscall",
                "rt_sigreturn"
            ]
        );
    }

    #[test]
    fn nobody_may_start_or_reach_another_process() {
        let forbidden = [
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_tgkill,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_open,
            libc::SYS_memfd_create,
        ];
        for kind in kinds().into_iter().chain([Kind::Launch]) {
            let policy = policy(kind);
            for number in forbidden {
                assert!(policy.find(number).is_none(), "{kind:?} allows {number}");
            }
        }
    }

    #[test]
    fn without_directories_nothing_can_be_opened() {
        for kind in [
            Kind::Tenant,
            Kind::Compiler,
            Kind::Program(ProgramGrants::default()),
        ] {
            for number in [
                libc::SYS_openat,
                libc::SYS_openat2,
                libc::SYS_open,
                libc::SYS_creat,
                libc::SYS_open_by_handle_at,
            ] {
                assert!(policy(kind).find(number).is_none(), "{kind:?}");
            }
        }
    }

    #[test]
    fn nobody_may_make_memory_executable() {
        for kind in kinds() {
            let policy = policy(kind);
            for name in ["mmap", "mprotect"] {
                let entry = policy
                    .allowed
                    .iter()
                    .find(|allowed| allowed.name == name)
                    .unwrap();
                assert!(!entry.arguments.is_empty());
                assert!(
                    entry
                        .arguments
                        .iter()
                        .all(|checks| checks.contains(&Check::Masked(2, PROT_EXEC, 0)))
                );
            }
        }
    }
}
