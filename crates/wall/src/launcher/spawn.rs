//! Starting one worker: namespaces, ids, limits, descriptors, exec.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use lazaret_wire::socket::Channel;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use super::clone::{Cloned, clone};
use super::protocol::{SETUP_FD, Spawn};
use crate::layer::Layer;
use crate::worker::ARGV0;

/// What the launcher holds for all workers.
pub struct Materials {
    /// The executable.
    pub executable: OwnedFd,
    /// `/proc` of the host's PID namespace: to write id maps.
    pub proc: OwnedFd,
    /// `/dev/null`.
    pub null: OwnedFd,
}

/// Why a worker could not be started: the layer, if it was one, and the reason.
pub type SpawnError = (Option<Layer>, String);

/// The namespaces that each worker has of its own. The network namespace is
/// the launcher's, empty one: making one costs 1 to 3 ms.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Starts a worker. Returns its number in this PID namespace and its pidfd.
pub fn spawn(
    order: &Spawn,
    materials: &Materials,
    setup: OwnedFd,
) -> Result<(i32, OwnedFd), SpawnError> {
    let (go, wait) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map(|(read, write)| (write, read))
        .map_err(|errno| (None, format!("pipe: {errno}")))?;
    // SAFETY: the launcher has one thread.
    match unsafe { clone(NAMESPACES) } {
        Err(errno) => Err((
            Some(Layer::UserNamespace),
            format!("clone3 into new namespaces: {errno}"),
        )),
        Ok(Cloned::Child) => {
            drop(go);
            let (step, errno) = become_worker(order, materials, &setup, &wait);
            report(setup, step, errno);
            // SAFETY: ends this process without running anybody's destructors.
            unsafe { libc::_exit(127) }
        }
        Ok(Cloned::Parent(pid, pidfd)) => {
            drop(wait);
            match map_ids(order, materials, pidfd.as_fd()) {
                Ok(()) => {
                    // A child that is already gone will be reaped and reported.
                    let _ = rustix::io::write(&go, &[1]);
                    Ok((pid, pidfd))
                }
                Err(message) => {
                    let _ =
                        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
                    let _ = rustix::process::waitid(
                        rustix::process::WaitId::PidFd(pidfd.as_fd()),
                        rustix::process::WaitIdOptions::EXITED,
                    );
                    Err((Some(Layer::UserNamespace), message))
                }
            }
        }
    }
}

/// Maps uid and gid 0 of the worker's namespace to its one id. Inside, it is
/// "root" until the capabilities go, which it needs to empty its root; outside
/// it is nobody.
fn map_ids(order: &Spawn, materials: &Materials, pidfd: BorrowedFd<'_>) -> Result<(), String> {
    let info = read(
        &materials.proc,
        &format!("self/fdinfo/{}", pidfd.as_raw_fd()),
    )?;
    let pid: u32 = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| "fdinfo of a pidfd has no Pid line".to_owned())?;
    let map = format!("0 {} 1\n", order.user);
    if order.user == 0 {
        // An ordinary user's launcher has its own id only; without setgroups
        // the gid map may be written.
        write(&materials.proc, &format!("{pid}/setgroups"), "deny")?;
    }
    write(&materials.proc, &format!("{pid}/uid_map"), &map)?;
    write(&materials.proc, &format!("{pid}/gid_map"), &map)
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

fn write(proc: &OwnedFd, path: &str, text: &str) -> Result<(), String> {
    let fail = |errno: Errno| format!("/proc/{path}: {errno}");
    let file = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(fail)?;
    rustix::io::write(&file, text.as_bytes()).map_err(fail)?;
    Ok(())
}

/// In the child: everything up to exec, which on success doesn't return.
fn become_worker(
    order: &Spawn,
    materials: &Materials,
    setup: &OwnedFd,
    wait: &OwnedFd,
) -> (&'static str, Errno) {
    match prepare(order, materials, setup, wait) {
        Err(failed) => failed,
        Ok(executable) => {
            let arguments = [ARGV0.as_ptr(), std::ptr::null()];
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
    }
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

fn prepare(
    order: &Spawn,
    materials: &Materials,
    setup: &OwnedFd,
    wait: &OwnedFd,
) -> Result<i32, (&'static str, Errno)> {
    let at = |step: &'static str| move |errno: Errno| (step, errno);
    let mut byte = [0];
    match rustix::io::read(wait, &mut byte) {
        Ok(1) => {}
        Ok(_) => return Err(("the launcher gave up", Errno::PIPE)),
        Err(errno) => return Err(("wait for the id map", errno)),
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
    // The raw calls, as libc's wrappers signal threads.
    // SAFETY: plain numbers.
    let set = unsafe {
        libc::syscall(libc::SYS_setresgid, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_setresuid, 0, 0, 0) == 0
    };
    if !set {
        return Err(("set user and group id", last()));
    }
    limits(order).map_err(at("set limits"))?;

    // Descriptors: 0 to 2 nothing, 3 the set-up socket, 4 the executable,
    // closed by exec. Copies are made above the range first.
    let high =
        |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 10).map_err(at("duplicate"));
    let (setup, executable, null) = (
        high(setup.as_fd())?,
        high(materials.executable.as_fd())?,
        high(materials.null.as_fd())?,
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

fn limits(order: &Spawn) -> Result<(), Errno> {
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
    if order.user != 0 {
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

/// Tells the host through the set-up socket what failed before exec.
fn report(setup: OwnedFd, step: &str, errno: Errno) {
    // Its number may be closed already; then the socket is where exec would
    // have left it.
    // SAFETY: nothing else in this process uses that number.
    let placed = unsafe { OwnedFd::from_raw_fd(SETUP_FD) };
    for socket in [setup, placed] {
        let channel = Channel::from_descriptor(socket);
        if channel.is_ok_and(|channel| {
            channel
                .send(format!("{step}: {errno}").as_bytes(), &[])
                .is_ok()
        }) {
            return;
        }
    }
}
