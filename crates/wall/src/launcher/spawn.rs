//! Starting one worker: namespaces, ids, limits, descriptors, exec.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::futex;

use super::borrow::{Borrower, Stack, reap};
use super::copies::Copies;
use super::protocol::{SETUP_FD, Spawn};
use crate::executable::Unwritable;
use crate::layer::Layer;
use crate::off::Off;
use crate::process::says_exiting;

/// What the launcher holds for all workers.
pub struct Materials {
    /// The executable of workers.
    pub executable: Copies,
    /// That of compilers, if it starts any.
    pub compiler: Option<Unwritable>,
    /// `/proc` of the host's PID namespace: to write id maps.
    pub proc: OwnedFd,
    /// `/dev/null`.
    pub null: OwnedFd,
    /// Where a worker stands until it is executed.
    pub stack: Stack,
    /// Layers that workers don't have, on purpose.
    pub off: Off,
    /// `argv[0]` of workers.
    pub worker_name: &'static CStr,
}

/// The number of the executable of a compiler, of which there are no copies.
const NO_COPY: usize = usize::MAX;

/// Why a worker could not be started.
#[derive(Debug)]
pub struct SpawnError {
    /// The layer, if it was one.
    pub layer: Option<Layer>,
    /// The reason.
    pub message: String,
    /// What the kernel said, if it was the kernel.
    pub errno: Option<Errno>,
}

impl SpawnError {
    pub fn of(message: impl Into<String>, errno: Option<Errno>) -> Self {
        Self {
            layer: None,
            message: message.into(),
            errno,
        }
    }

    pub fn layer(layer: Layer, message: String) -> Self {
        Self {
            layer: Some(layer),
            message,
            errno: None,
        }
    }

    pub fn executable(error: &std::io::Error) -> Self {
        // That of a full file system isn't about processes.
        let errno = Errno::from_io_error(error).filter(|errno| *errno != Errno::NOSPC);
        Self::of(format!("the executable: {error}"), errno)
    }
}

/// The namespaces that each worker has of its own. The network namespace is
/// the launcher's, empty one: making one costs 1 to 3 ms.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// What a worker needs of the launcher until it is executed, and what they say
/// to each other in this shared memory.
struct Birth<'a> {
    order: &'a Spawn,
    off: Off,
    name: &'static CStr,
    /// The launcher's number in the PID namespace of a worker that has none of
    /// its own.
    launcher: i32,
    executable: BorrowedFd<'a>,
    null: BorrowedFd<'a>,
    setup: BorrowedFd<'a>,
    /// `tasks` files of its control groups.
    tasks: &'a [OwnedFd],
    /// Whether it could not enter all of them.
    outside: Cell<bool>,
    /// Not zero once the worker's ids are mapped.
    mapped: AtomicU32,
    /// What failed in the worker. The launcher reads it when the worker is
    /// gone from its memory.
    failed: Cell<Option<(&'static str, Errno)>>,
}

/// A worker that was started.
pub struct Started {
    /// Its number in this PID namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Whether it is in all the control groups that it was to be in.
    pub grouped: bool,
    /// The number of the executable that it was made of.
    pub copy: usize,
}

/// Starts a worker and waits until it is executed. It begins in the control group
/// `into` and writes itself into `tasks`, where the kernel lets it.
pub fn spawn(
    order: &Spawn,
    materials: &mut Materials,
    setup: OwnedFd,
    into: Option<OwnedFd>,
    tasks: &[OwnedFd],
) -> Result<Started, SpawnError> {
    let (off, name) = (materials.off, materials.worker_name);
    let (copy, executable) = match order.compiler {
        false => materials.executable.next(materials.proc.as_fd()),
        true => materials
            .compiler
            .as_mut()
            .ok_or_else(|| SpawnError::of("this launcher starts no compilers", None))?
            .get()
            .map(|file| (NO_COPY, file)),
    }
    .map_err(|error| SpawnError::executable(&error))?;
    let mut birth = Birth {
        order,
        off,
        name,
        launcher: rustix::process::getpid().as_raw_nonzero().get(),
        executable,
        null: materials.null.as_fd(),
        setup: setup.as_fd(),
        tasks,
        outside: Cell::new(false),
        mapped: AtomicU32::new(0),
        failed: Cell::new(None),
    };
    let shared = &raw mut birth;
    // SAFETY: `worker` expects a `Birth`, which outlives the borrower; it makes
    // system calls only, and never returns.
    let borrower = unsafe {
        Borrower::start(
            off.namespaces(NAMESPACES),
            into.as_ref().map(AsFd::as_fd),
            &mut materials.stack,
            worker,
            shared.cast(),
        )
    }
    .map_err(|errno| SpawnError {
        layer: Some(Layer::UserNamespace),
        ..SpawnError::of(format!("clone into new namespaces: {errno}"), Some(errno))
    })?;
    // SAFETY: made above. What both sides use of it at the same time is atomic.
    let birth = unsafe { &*shared };
    let (pid, entered) = (borrower.pid, borrower.into || into.is_none());
    // If they can't be mapped, the worker is ended here.
    if !off.has(Layer::UserNamespace)
        && let Err(message) = map_ids(order, &materials.proc, borrower.pidfd())
    {
        let going = is_going(&materials.proc, borrower.pidfd());
        // Until it is gone it may still write to what is read here.
        drop(borrower);
        return Err(match birth.failed.take() {
            Some((step, errno)) => failed(step, errno),
            // It was going, and what it was to be given with it.
            None if going => SpawnError::of(message, Some(Errno::SRCH)),
            None => SpawnError::layer(Layer::UserNamespace, message),
        });
    }
    birth.mapped.store(1, Release);
    // Nobody waits if it has gone on by itself.
    let _ = futex::wake(&birth.mapped, futex::Flags::empty(), 1);
    let pidfd = borrower.wait();
    match birth.failed.take() {
        None => Ok(Started {
            copy,
            pid,
            pidfd,
            grouped: entered && !birth.outside.get(),
        }),
        Some((step, errno)) => {
            let _ = reap(&pidfd);
            Err(failed(step, errno))
        }
    }
}

/// What the worker itself could not do.
fn failed(step: &str, errno: Errno) -> SpawnError {
    SpawnError::of(format!("starting the worker: {step}: {errno}"), Some(errno))
}

/// Its number in the PID namespace of `proc`.
fn number(proc: &OwnedFd, pidfd: BorrowedFd<'_>) -> Result<u32, String> {
    let info = read(proc, &format!("self/fdinfo/{}", pidfd.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| "fdinfo of a pidfd has no Pid line".to_owned())
}

/// Whether a process has ended or is about to.
fn is_going(proc: &OwnedFd, pidfd: BorrowedFd<'_>) -> bool {
    let stat = number(proc, pidfd).and_then(|pid| read(proc, &format!("{pid}/stat")));
    stat.is_ok_and(|stat| says_exiting(&stat))
}

/// Maps uid and gid 0 of the worker's namespace to its one id. Inside, it is
/// "root" until the capabilities go, which it needs to empty its root; outside
/// it is nobody.
fn map_ids(order: &Spawn, proc: &OwnedFd, pidfd: BorrowedFd<'_>) -> Result<(), String> {
    let pid = number(proc, pidfd)?;
    let map = format!("0 {} 1\n", order.user);
    if order.user == 0 {
        // An ordinary user's launcher has its own id only; without setgroups
        // the gid map may be written.
        write(proc, &format!("{pid}/setgroups"), "deny")?;
    }
    write(proc, &format!("{pid}/uid_map"), &map)?;
    write(proc, &format!("{pid}/gid_map"), &map)
}

fn read(proc: &OwnedFd, path: &str) -> Result<String, String> {
    let fail = |errno: Errno| format!("/proc/{path}: {errno}");
    let file = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(fail)?;
    let mut text = vec![0; 4096];
    let length = rustix::io::read(&file, &mut text).map_err(fail)?;
    text.truncate(length);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

pub(super) fn write(proc: &OwnedFd, path: &str, text: &str) -> Result<(), String> {
    let fail = |errno: Errno| format!("/proc/{path}: {errno}");
    let file = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(fail)?;
    rustix::io::write(&file, text.as_bytes()).map_err(fail)?;
    Ok(())
}

/// In the child: everything up to exec.
extern "C" fn worker(birth: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a `Birth` that stays until this child no longer
    // uses this memory.
    let birth = unsafe { &*birth.cast::<Birth<'_>>() };
    birth.failed.set(Some(match prepare(birth) {
        Err(failed) => failed,
        Ok(executable) => {
            let arguments = [birth.name.as_ptr(), std::ptr::null()];
            let environment = [std::ptr::null::<libc::c_char>()];
            // SAFETY: NUL-terminated strings in null-terminated arrays.
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    executable,
                    c"".as_ptr(),
                    arguments.as_ptr(),
                    environment.as_ptr(),
                    libc::AT_EMPTY_PATH,
                )
            };
            ("execveat", last())
        }
    }));
    // SAFETY: ends this process without running anybody's destructors.
    unsafe { libc::_exit(127) }
}

/// Why the last system call through libc failed. The launcher, which uses the
/// same `errno` meanwhile, could only make this another reason.
fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Where no PID namespace does it, has the kernel end this process with the launcher.
fn end_with_launcher(birth: &Birth<'_>) -> Result<(), (&'static str, Errno)> {
    if !birth.off.has(Layer::PidNamespace) {
        return Ok(());
    }
    // SAFETY: plain numbers.
    if unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(("PR_SET_PDEATHSIG", last()));
    }
    // It may have ended before that.
    // SAFETY: takes nothing.
    match unsafe { libc::syscall(libc::SYS_getppid) } == i64::from(birth.launcher) {
        true => Ok(()),
        false => Err(("look for the launcher", Errno::SRCH)),
    }
}

fn prepare(birth: &Birth<'_>) -> Result<i32, (&'static str, Errno)> {
    let at = |step: &'static str| move |errno: Errno| (step, errno);
    // Else it would wait below for a launcher that is gone.
    end_with_launcher(birth)?;
    // First, while the launcher maps its ids.
    for group in birth.tasks {
        // Itself (kernel: `cgroup1_tasks_write`, kernel/cgroup/cgroup-v1.c).
        if rustix::io::write(group, b"0").is_err() {
            birth.outside.set(true);
        }
    }
    // The launcher kills this process where it can't map its ids.
    while birth.mapped.load(Acquire) == 0 {
        match futex::wait(&birth.mapped, futex::Flags::empty(), 0, None) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(("wait for the id map", errno)),
        }
    }
    // Signals blocked in the launcher would stay blocked.
    // SAFETY: an initialised signal set on this stack.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
    // Where setgroups is denied there is nothing to drop.
    // SAFETY: an empty list.
    unsafe { libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<u32>()) };
    // Without a user namespace an ordinary user's worker stays that user.
    let own = birth.order.user == rustix::process::geteuid().as_raw();
    let (id, change) = match birth.off.has(Layer::UserNamespace) {
        false => (0, true),
        true => (birth.order.user, !own),
    };
    if birth.off.has(Layer::UserNamespace) && change {
        // Root's, which it has only here. The receipt says what became of it.
        let _ = crate::layers::capabilities::empty_bounding_set();
    }
    // The raw calls, as libc's wrappers signal threads.
    // SAFETY: plain numbers.
    let set = !change
        || unsafe {
            libc::syscall(libc::SYS_setresgid, id, id, id) == 0
                && libc::syscall(libc::SYS_setresuid, id, id, id) == 0
        };
    if !set {
        return Err(("set user and group id", last()));
    }
    // Again after the ids, whose change takes it away (kernel: `commit_creds`,
    // kernel/cred.c).
    end_with_launcher(birth)?;
    if !birth.off.has(Layer::Rlimits) {
        limits(birth.order, change && birth.order.user != 0).map_err(at("set limits"))?;
    }

    // Descriptors: 0 to 2 nothing, 3 the set-up socket, 4 the executable,
    // closed by exec. Copies are made above the range first.
    let high =
        |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 10).map_err(at("duplicate"));
    let (setup, executable, null) = (
        high(birth.setup)?,
        high(birth.executable)?,
        high(birth.null)?,
    );
    for target in 0..3 {
        place(null.as_raw_fd(), target, 0)?;
    }
    place(setup.as_raw_fd(), SETUP_FD, 0)?;
    place(executable.as_raw_fd(), SETUP_FD + 1, libc::O_CLOEXEC)?;
    // SAFETY: closes everything above; nothing of this process uses it later.
    if unsafe { libc::syscall(libc::SYS_close_range, (SETUP_FD + 2) as u32, u32::MAX, 0) } != 0 {
        return Err(("close descriptors", last()));
    }
    // Closed already, by their numbers.
    let _closed = std::mem::ManuallyDrop::new((setup, executable, null));
    Ok(SETUP_FD + 1)
}

fn place(from: i32, to: i32, flags: i32) -> Result<(), (&'static str, Errno)> {
    // SAFETY: `from` is open and differs from `to`, which belongs to nobody.
    if unsafe { libc::dup3(from, to, flags) } < 0 {
        Err(("place a descriptor", last()))
    } else {
        Ok(())
    }
}

/// `alone` is whether nobody else on the host has the worker's user id.
fn limits(order: &Spawn, alone: bool) -> Result<(), Errno> {
    let both = |value: u64| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    let set = |resource, value| rustix::process::setrlimit(resource, both(value));
    set(Resource::Core, 0)?;
    set(Resource::Data, order.data_limit)?;
    set(Resource::As, order.address_space)?;
    set(Resource::Nofile, order.descriptor_limit)?;
    set(Resource::Fsize, order.file_limit)?;
    set(Resource::Memlock, 0)?;
    set(Resource::Msgqueue, 0)?;
    set(Resource::Sigpending, 16)?;
    set(Resource::Stack, order.stack)?;
    // Per user id on the host: an ordinary user's other processes count too,
    // so this can't be the limit that holds. The filter refuses clone.
    if alone {
        set(Resource::Nproc, 1)?;
    }
    if let Some(seconds) = order.cpu_seconds {
        // SIGXCPU at the soft limit, SIGKILL a second later.
        rustix::process::setrlimit(
            Resource::Cpu,
            Rlimit {
                current: Some(seconds),
                maximum: Some(seconds.saturating_add(1)),
            },
        )?;
    }
    Ok(())
}
