//! The launcher process itself.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use lazaret_wire::codec::Message;
use lazaret_wire::socket::{Channel, ChannelError, Datagram};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::borrow::Stack;
use super::copies::Copies;
use super::protocol::{Configure, ExitStatus, Report, Spawn, Usage};
use super::spawn::{self, Materials, SpawnError, Started, spawn};
use super::{root, strangers};
use crate::executable::Unwritable;
use crate::layer::Layer;
use crate::off::Off;

/// The launcher: called by `init` when this process was started as one. It
/// ends with the host.
pub fn main() -> ! {
    // SAFETY: the host put the socket there, and nothing else uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(0) };
    let code = match Channel::from_descriptor(socket) {
        Ok(channel) => run(channel),
        Err(error) => {
            eprintln!("lazaret launcher: {error}; this process is started by Lazaret itself");
            2
        }
    };
    std::process::exit(code)
}

fn run(channel: Channel) -> i32 {
    // Out of the way of descriptors 0 to 2.
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(channel.as_fd(), 3) else {
        return 2;
    };
    let Ok(moved) = Channel::from_descriptor(socket) else {
        return 2;
    };
    drop(channel);
    let channel = moved;
    let (mut materials, directories, missing) = match configure(&channel) {
        Ok(done) => done,
        Err(error) => {
            let report = Report::Failed {
                layer: error.layer.map(|layer| layer.name().to_owned()),
                message: error.message,
                errno: error.errno.map_or(0, Errno::raw_os_error),
            };
            let _ = say(&channel, &report, &[]);
            return 1;
        }
    };
    let borrowed: Vec<BorrowedFd<'_>> = directories.iter().map(AsFd::as_fd).collect();
    if say(&channel, &Report::Configured { missing }, &borrowed).is_err() {
        return 1;
    }
    drop(directories);
    let code = serve(&channel, &mut materials);
    if materials.off.has(Layer::PidNamespace) {
        strangers::kill(&materials.proc, &HashSet::new());
    }
    code
}

/// What `/proc/PID/oom_score_adj` of a process is that is killed before all others
/// (proc_pid_oom_score_adj(5)).
const KILLED_FIRST: &str = "1000";

fn say(
    channel: &Channel,
    report: &Report,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let mut bytes = Vec::new();
    match report.to_bytes(&mut bytes) {
        Ok(()) => channel.send(&bytes, descriptors),
        Err(_) => Err(ChannelError::Cut),
    }
}

fn configure(channel: &Channel) -> Result<(Materials, Vec<OwnedFd>, Vec<String>), SpawnError> {
    let plain = |message: String| SpawnError::of(message, None);
    let open = |path: &str, flags: OFlags| {
        rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| SpawnError::of(format!("{path}: {errno}"), Some(errno)))
    };
    // 0 was the socket. The standard descriptors become nothing before
    // anything is received that could take their numbers.
    let null = open("/dev/null", OFlags::RDWR)?;
    // SAFETY: dup2 onto descriptors that nobody uses; 2 stays, so that a
    // launcher that breaks down can say so.
    let null = unsafe {
        let raw = std::os::fd::AsRawFd::as_raw_fd(&null);
        libc::dup2(raw, 0);
        libc::dup2(raw, 1);
        rustix::io::fcntl_dupfd_cloexec(&null, 3)
            .map_err(|errno| plain(format!("/dev/null: {errno}")))?
    };
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let Datagram {
        bytes,
        mut descriptors,
    } = channel
        .receive()
        .map_err(|error| plain(error.to_string()))?;
    let order = Configure::from_bytes(&bytes).map_err(|error| plain(error.to_string()))?;
    let compiler = match descriptors.len() {
        2 => descriptors.pop(),
        _ => None,
    };
    let Some(executable) = descriptors.pop() else {
        return Err(plain("no executable was handed over".into()));
    };
    let off = Off::from_names(&order.off).map_err(plain)?;
    let mut executable = Unwritable::new(executable);
    let compiler = compiler.map(Unwritable::new);
    // A compiler's may be large, and is seldom needed.
    executable
        .get()
        .map_err(|error| SpawnError::executable(&error))?;
    let proc = open("/proc", OFlags::PATH | OFlags::DIRECTORY)?;
    // Workers inherit it: where the machine has no memory left, one of them has to go and
    // not the host, which others depend on (kernel: `oom_badness`, mm/oom_kill.c). Who may
    // not say so is no worse off than before.
    let _ = spawn::write(&proc, "self/oom_score_adj", KILLED_FIRST);
    if !off.has(Layer::NoNewPrivs) {
        crate::layers::no_new_privs::apply()
            .map_err(|error| SpawnError::layer(Layer::NoNewPrivs, error.to_string()))?;
    }
    if off.has(Layer::PidNamespace) {
        strangers::adopt().map_err(|errno| plain(format!("PR_SET_CHILD_SUBREAPER: {errno}")))?;
    }
    let stack = Stack::new().map_err(|errno| plain(format!("a stack: {errno}")))?;
    let detached = !off.has(Layer::MountNamespace);
    let directories = root::open_directories(&order.directories, detached).map_err(plain)?;
    let mut missing = Vec::new();
    if !off.has(Layer::EmptyRoot)
        && let Err(error) = match order.libraries.clone() {
            Some(libraries) => root::enter(libraries),
            None => root::enter_nothing(),
        }
    {
        if !order.accepts(Layer::EmptyRoot) {
            return Err(SpawnError::layer(Layer::EmptyRoot, error.to_string()));
        }
        missing.push(Layer::EmptyRoot.name().to_owned());
    }
    Ok((
        Materials {
            executable: Copies::new(executable),
            compiler,
            proc,
            null,
            stack,
            off,
            worker_name: match order.red_team {
                false => crate::worker::ARGV0,
                true => crate::worker::RED_TEAM,
            },
        },
        directories,
        missing,
    ))
}

fn serve(channel: &Channel, materials: &mut Materials) -> i32 {
    let Ok(signals) = child_signals() else {
        return 1;
    };
    // By process, its number and that of the executable that it was made of.
    let mut workers: HashMap<i32, (u64, usize)> = HashMap::new();
    loop {
        let mut set = [
            PollFd::new(channel, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        match rustix::event::poll(&mut set, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return 1,
        }
        let (order, child) = (!set[0].revents().is_empty(), !set[1].revents().is_empty());
        if child {
            let mut drain = [0; 128];
            let _ = rustix::io::read(&signals, &mut drain);
            while let Some((pid, status, usage)) = reap() {
                // What it had started goes with it.
                if materials.off.has(Layer::PidNamespace) {
                    let others = workers.keys().copied().filter(|other| *other != pid);
                    strangers::kill(&materials.proc, &others.collect());
                }
                if let Some((id, copy)) = workers.remove(&pid) {
                    materials.executable.ended(copy);
                    if say(channel, &Report::Exited { id, status, usage }, &[]).is_err() {
                        return 0;
                    }
                }
            }
        }
        if order {
            match channel.receive() {
                // The host is gone: so are we, and with pid 1 all workers.
                Err(ChannelError::Closed) => return 0,
                Err(_) => return 1,
                Ok(datagram) => {
                    let (report, pidfd) = obey(datagram, materials, &mut workers);
                    let borrowed: Vec<BorrowedFd<'_>> = pidfd.iter().map(AsFd::as_fd).collect();
                    if say(channel, &report, &borrowed).is_err() {
                        return 0;
                    }
                }
            }
        }
    }
}

fn obey(
    datagram: Datagram,
    materials: &mut Materials,
    workers: &mut HashMap<i32, (u64, usize)>,
) -> (Report, Option<OwnedFd>) {
    let Datagram {
        bytes,
        mut descriptors,
    } = datagram;
    let failed = |id, error: SpawnError| {
        (
            Report::SpawnFailed {
                id,
                layer: error.layer.map(|layer| layer.name().to_owned()),
                message: error.message,
                errno: error.errno.map_or(0, Errno::raw_os_error),
            },
            None,
        )
    };
    let no_socket = || SpawnError::of("no set-up socket was handed over", None);
    let order = match Spawn::from_bytes(&bytes) {
        Ok(order) => order,
        Err(error) => return failed(u64::MAX, SpawnError::of(error.to_string(), None)),
    };
    if descriptors.len() < 1 + usize::from(order.into) {
        return failed(order.id, no_socket());
    }
    let tasks = descriptors.split_off(1 + usize::from(order.into));
    let into = descriptors.split_off(1).pop();
    let Some(setup) = descriptors.pop() else {
        return failed(order.id, no_socket());
    };
    match spawn(&order, materials, setup, into, &tasks) {
        Ok(Started {
            pid,
            pidfd,
            grouped,
            copy,
        }) => {
            materials.executable.started(copy);
            workers.insert(pid, (order.id, copy));
            let id = order.id;
            (Report::Spawned { id, grouped }, Some(pidfd))
        }
        Err(error) => failed(order.id, error),
    }
}

/// A descriptor that becomes readable when a child ends.
fn child_signals() -> std::io::Result<OwnedFd> {
    // SAFETY: an initialised signal set on this stack; the descriptor returned
    // is new and ours.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

/// One child that has ended, if there is one.
fn reap() -> Option<(i32, ExitStatus, Usage)> {
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage.
    let mut usage = unsafe { std::mem::zeroed::<libc::rusage>() };
    // SAFETY: two places on this stack to write to.
    let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage) };
    if pid <= 0 {
        return None;
    }
    let micros = |time: libc::timeval| {
        (time.tv_sec as u64)
            .saturating_mul(1_000_000)
            .saturating_add(time.tv_usec as u64)
    };
    let status = if libc::WIFSIGNALED(status) {
        ExitStatus::Signaled(libc::WTERMSIG(status))
    } else {
        ExitStatus::Exited(libc::WEXITSTATUS(status))
    };
    let usage = Usage {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        peak_resident: (usage.ru_maxrss as u64).saturating_mul(1024),
    };
    Some((pid, status, usage))
}
