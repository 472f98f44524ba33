//! The host's side of the launcher.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lazaret_wire::codec::Message;
use lazaret_wire::socket::{Channel, ChannelError};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use thiserror::Error;

use super::clone::{Cloned, clone};
use super::ids::{HostIds, IdsError};
use super::protocol::{Configure, Directory, ExitStatus, Report, Spawn, Usage};
use crate::executable;
use crate::layer::Layer;

/// The environment variable that says how many Lazaret processes lie between
/// this one and the first host: a host that starts itself by mistake must not
/// become a fork bomb.
pub const DEPTH: &str = "LAZARET_DEPTH";

/// How long the launcher may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why no launcher or worker could be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LauncherError {
    /// The executable can't be opened.
    #[error("worker executable: {0}")]
    Executable(#[source] io::Error),
    /// No user ids for workers.
    #[error(transparent)]
    Ids(#[from] IdsError),
    /// A layer is missing and the operator didn't accept that.
    #[error("{message}{}", layer.without())]
    Layer {
        /// The layer.
        layer: Layer,
        /// What failed and what to do.
        message: String,
    },
    /// A granted directory can't be used.
    #[error("directory {path}: {source}")]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The launcher failed for another reason.
    #[error("launcher: {0}")]
    Failed(String),
    /// It said nothing in time.
    #[error("launcher: no answer within {} s; does the worker executable call lazaret::init() first in main?", PATIENCE.as_secs())]
    Silent,
    /// The socket to it.
    #[error("launcher: {0}")]
    Channel(#[from] ChannelError),
    /// It has ended, and its workers with it.
    #[error("launcher: it has ended, and its workers with it")]
    Ended,
}

/// A directory to grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// Its path on the host.
    pub path: PathBuf,
    /// Whether it may be written.
    pub writable: bool,
}

/// How to start a launcher.
#[derive(Debug, Clone, Default)]
pub struct LauncherOptions {
    /// The executable for launcher and workers; this process's own if none.
    pub executable: Option<PathBuf>,
    /// Layers that may be missing.
    pub accept_missing: Vec<Layer>,
    /// The host user that workers run as; root only.
    pub as_user: Option<u32>,
    /// Directories that its workers are given.
    pub directories: Vec<Grants>,
}

/// A worker's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It ended so, and used this.
    Exited(ExitStatus, Usage),
    /// The launcher ended, and the worker with it.
    LauncherEnded,
}

/// A worker that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Its number on the host.
    pub pid: i32,
    /// Its user id on the host.
    pub host_uid: u32,
    /// The host's end of the set-up socket.
    pub setup: Channel,
}

type Watcher = Box<dyn FnOnce(Event) + Send>;

#[derive(Default)]
struct Book {
    /// Who waits for the answer to a spawn order.
    orders: HashMap<u64, SyncSender<Result<OwnedFd, LauncherError>>>,
    /// Who wants to know of a worker's end.
    watchers: HashMap<u64, (Watcher, u32)>,
    next_id: u64,
    /// Free user ids, inside the launcher's namespace.
    free_users: Vec<u32>,
    next_user: u32,
    last_user: u32,
    ended: bool,
}

/// A running launcher. Dropping it ends it and all its workers.
pub struct Launcher {
    channel: Arc<Channel>,
    book: Arc<Mutex<Book>>,
    pidfd: OwnedFd,
    missing: Vec<Layer>,
    directories: Vec<OwnedFd>,
    ids: HostIds,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launcher")
            .field("pidfd", &self.pidfd)
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

/// The namespaces of the launcher, which its workers inherit where they have
/// none of their own.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

impl Launcher {
    /// Starts a launcher and waits until it is ready.
    pub fn start(options: &LauncherOptions) -> Result<Self, LauncherError> {
        let executable =
            executable::open(options.executable.as_deref()).map_err(LauncherError::Executable)?;
        let ids = HostIds::choose(options.as_user)?;
        let directories = options
            .directories
            .iter()
            .map(directory)
            .collect::<Result<Vec<_>, _>>()?;
        let depth = depth().saturating_add(1);
        let environment = CString::new(format!("{DEPTH}={depth}")).unwrap_or_default();

        let (ours, theirs) = Channel::pair()?;
        let pidfd = start(&ours, theirs, &executable, &ids, &environment)?;
        let configure = Configure {
            directories,
            accept_missing: options
                .accept_missing
                .iter()
                .map(|layer| layer.name().to_owned())
                .collect(),
        };
        let mut bytes = Vec::new();
        configure
            .to_bytes(&mut bytes)
            .map_err(|error| LauncherError::Failed(error.to_string()))?;
        ours.send(&bytes, &[executable.as_fd()])?;
        if !ours.poll(PATIENCE)? {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            return Err(LauncherError::Silent);
        }
        let answer = match ours.receive() {
            Err(ChannelError::Closed) => return Err(LauncherError::Failed(early_end(&pidfd))),
            other => other?,
        };
        let (missing, directories) = match Report::from_bytes(&answer.bytes) {
            Ok(Report::Configured { missing }) => (missing, answer.descriptors),
            Ok(Report::Failed { layer, message }) => return Err(refusal(layer, message)),
            other => {
                return Err(LauncherError::Failed(format!(
                    "expected Configured, got {other:?}"
                )));
            }
        };
        let book = Arc::new(Mutex::new(Book {
            next_user: ids.first_id,
            last_user: ids.first_id.saturating_add(ids.ids),
            ..Book::default()
        }));
        let channel = Arc::new(ours);
        let reader = {
            let (channel, book) = (channel.clone(), book.clone());
            std::thread::Builder::new()
                .name("lazaret-launcher".into())
                .spawn(move || read_reports(&channel, &book))
                .map_err(|error| LauncherError::Failed(format!("reader thread: {error}")))?
        };
        Ok(Self {
            channel,
            book,
            pidfd,
            missing: missing
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
            directories,
            ids,
            reader: Some(reader),
        })
    }

    /// Layers that the launcher could not put on (and was allowed not to).
    pub fn missing(&self) -> &[Layer] {
        &self.missing
    }

    /// The granted directories, in the order of the options.
    pub fn directories(&self) -> &[OwnedFd] {
        &self.directories
    }

    /// The host uid that the first worker has.
    pub fn first_host_uid(&self) -> u32 {
        self.ids.host_uid(self.ids.first_id)
    }

    /// Starts a worker with these limits. `ended` is called once, from the
    /// launcher's reader thread, when it has ended.
    pub fn spawn(
        &self,
        limits: Limits,
        ended: impl FnOnce(Event) + Send + 'static,
    ) -> Result<Spawned, LauncherError> {
        let (setup, theirs) = Channel::pair()?;
        let (sender, receiver) = sync_channel(1);
        let (id, user) = {
            let mut book = lock(&self.book);
            if book.ended {
                return Err(LauncherError::Ended);
            }
            let user = match book.free_users.pop() {
                Some(user) => user,
                // An ordinary user has one id for all.
                None if book.last_user - book.next_user <= 1 => book.next_user,
                None => {
                    book.next_user += 1;
                    book.next_user - 1
                }
            };
            book.next_id += 1;
            let id = book.next_id;
            book.orders.insert(id, sender);
            book.watchers.insert(id, (Box::new(ended), user));
            (id, user)
        };
        let order = Spawn {
            id,
            user,
            data_limit: limits.data,
            address_space: limits.address_space,
            descriptor_limit: limits.descriptors,
            file_limit: limits.file,
            cpu_seconds: limits.cpu_seconds,
            stack: limits.stack,
        };
        let mut bytes = Vec::new();
        order
            .to_bytes(&mut bytes)
            .map_err(|error| LauncherError::Failed(error.to_string()))?;
        self.channel.send(&bytes, &[theirs.as_fd()])?;
        drop(theirs);
        let pidfd = receiver
            .recv_timeout(PATIENCE)
            .map_err(|_| LauncherError::Silent)??;
        let pid = pid_of(pidfd.as_fd())
            .ok_or_else(|| LauncherError::Failed("the worker ended at once".into()))?;
        Ok(Spawned {
            pidfd,
            pid,
            host_uid: self.ids.host_uid(user),
            setup,
        })
    }

    /// Whether it runs, as far as is known.
    pub fn is_alive(&self) -> bool {
        !lock(&self.book).ended
    }

    /// The launcher's number on the host.
    pub fn pid(&self) -> Option<i32> {
        pid_of(self.pidfd.as_fd())
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let _ = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// The limits of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of private memory (RLIMIT_DATA).
    pub data: u64,
    /// Bytes of address space (RLIMIT_AS): reservations and all. It bounds the
    /// page tables, which RLIMIT_DATA doesn't count.
    pub address_space: u64,
    /// Open descriptors (RLIMIT_NOFILE).
    pub descriptors: u64,
    /// Bytes of a file it writes (RLIMIT_FSIZE).
    pub file: u64,
    /// Seconds of processor time (RLIMIT_CPU).
    pub cpu_seconds: Option<u64>,
    /// Bytes of native stack (RLIMIT_STACK).
    pub stack: u64,
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many Lazaret processes lie between this one and the first host.
pub fn depth() -> u32 {
    std::env::var(DEPTH)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn directory(grant: &Grants) -> Result<Directory, LauncherError> {
    let fail = |source| LauncherError::Directory {
        path: grant.path.clone(),
        source,
    };
    let path = std::path::absolute(&grant.path).map_err(fail)?;
    let stat = rustix::fs::stat(&path).map_err(|errno| fail(errno.into()))?;
    Ok(Directory {
        path: path.as_os_str().as_bytes().to_vec(),
        device: stat.st_dev,
        inode: stat.st_ino,
        writable: grant.writable,
    })
}

fn refusal(layer: Option<String>, message: String) -> LauncherError {
    match layer.and_then(|name| name.parse().ok()) {
        Some(layer) => LauncherError::Layer { layer, message },
        None => LauncherError::Failed(message),
    }
}

fn early_end(pidfd: &OwnedFd) -> String {
    match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) if status.exited() => match status.exit_status() {
            Some(code) => format!("it ended with code {code} before it was ready"),
            None => "it ended before it was ready".into(),
        },
        _ => "it ended before it was ready".into(),
    }
}

/// The number of the process behind a pidfd, in the PID namespace of `/proc`.
fn pid_of(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))?
        .trim()
        .parse()
        .ok()?;
    (pid > 0).then_some(pid)
}

/// Clones this process into new namespaces and makes it the launcher.
fn start(
    ours: &Channel,
    theirs: Channel,
    executable: &OwnedFd,
    ids: &HostIds,
    environment: &CStr,
) -> Result<OwnedFd, LauncherError> {
    let arguments = [super::ARGV0.as_ptr(), std::ptr::null()];
    let environment = [environment.as_ptr(), std::ptr::null()];
    let theirs: OwnedFd = theirs.into();
    let (executable, socket, parent) = (
        executable.as_raw_fd(),
        theirs.as_raw_fd(),
        ours.as_fd().as_raw_fd(),
    );
    // SAFETY: this process may have threads, so the child makes system calls
    // only, on data that was prepared before, until it is another program.
    let cloned = unsafe { clone(NAMESPACES) }.map_err(|errno| LauncherError::Layer {
        layer: Layer::UserNamespace,
        message: format!(
            "clone3 into new namespaces: {errno}; {}",
            Layer::UserNamespace.remedy()
        ),
    })?;
    match cloned {
        Cloned::Child => {
            // SAFETY: as above; numbers and pointers that were made before.
            unsafe {
                // The parent's end must not stay open here, or its closing
                // would not be seen.
                libc::close(parent);
                // A host that gave up root is not dumpable, and neither is
                // this copy of it: its files in /proc would be root's, and the
                // ids could not be mapped. Exec decides anew.
                libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
                let mut byte = [0u8; 4];
                // This side says when it can be mapped, the parent when it is.
                if libc::syscall(libc::SYS_write, socket, byte.as_ptr(), 1usize) != 1 {
                    libc::_exit(126);
                }
                if libc::syscall(
                    libc::SYS_recvfrom,
                    socket,
                    byte.as_mut_ptr(),
                    byte.len(),
                    0,
                    0usize,
                    0usize,
                ) < 1
                    || libc::syscall(libc::SYS_setresgid, 0, 0, 0) != 0
                    || libc::syscall(libc::SYS_setresuid, 0, 0, 0) != 0
                    || libc::syscall(libc::SYS_dup3, socket, 0, 0) < 0
                {
                    libc::_exit(126);
                }
                // Everything else but standard error and the executable goes.
                let kept = if executable == 3 {
                    3
                } else {
                    libc::syscall(libc::SYS_dup3, executable, 3, libc::O_CLOEXEC)
                };
                if kept == 3 {
                    libc::syscall(libc::SYS_fcntl, 3, libc::F_SETFD, libc::FD_CLOEXEC);
                    libc::syscall(libc::SYS_close_range, 4u32, u32::MAX, 0);
                    libc::syscall(
                        libc::SYS_execveat,
                        3,
                        c"".as_ptr(),
                        arguments.as_ptr(),
                        environment.as_ptr(),
                        libc::AT_EMPTY_PATH,
                    );
                }
                libc::_exit(127)
            }
        }
        Cloned::Parent(pid, pidfd) => {
            drop(theirs);
            let told = ours.poll(PATIENCE).and_then(|told| {
                if told {
                    ours.receive().map(drop)
                } else {
                    Err(ChannelError::Closed)
                }
            });
            if let Err(error) = told {
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
                let _ =
                    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                return Err(error.into());
            }
            if let Err((file, source)) = map_ids(pid, ids) {
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
                let _ =
                    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                return Err(LauncherError::Layer {
                    layer: Layer::UserNamespace,
                    message: format!(
                        "/proc/{pid}/{file}: {source}; {}",
                        Layer::UserNamespace.remedy()
                    ),
                });
            }
            ours.send(b"go", &[])?;
            Ok(pidfd)
        }
    }
}

fn map_ids(pid: i32, ids: &HostIds) -> Result<(), (&'static str, io::Error)> {
    let write = |file: &'static str, text: &str| {
        std::fs::write(Path::new("/proc").join(pid.to_string()).join(file), text)
            .map_err(|error| (file, error))
    };
    if ids.deny_setgroups {
        write("setgroups", "deny")?;
    }
    write("uid_map", &ids.uid_map)?;
    write("gid_map", &ids.gid_map)
}

fn read_reports(channel: &Channel, book: &Mutex<Book>) {
    while let Ok(datagram) = channel.receive() {
        let Ok(report) = Report::from_bytes(&datagram.bytes) else {
            break;
        };
        match report {
            Report::Spawned { id } => {
                let waiting = lock(book).orders.remove(&id);
                if let (Some(waiting), Some(pidfd)) =
                    (waiting, datagram.descriptors.into_iter().next())
                {
                    let _ = waiting.send(Ok(pidfd));
                }
            }
            Report::SpawnFailed { id, layer, message } => {
                let waiting = {
                    let mut book = lock(book);
                    if let Some((_, user)) = book.watchers.remove(&id) {
                        free(&mut book, user);
                    }
                    book.orders.remove(&id)
                };
                if let Some(waiting) = waiting {
                    let _ = waiting.send(Err(refusal(layer, message)));
                }
            }
            Report::Exited { id, status, usage } => {
                let watcher = {
                    let mut book = lock(book);
                    let found = book.watchers.remove(&id);
                    if let Some((_, user)) = found {
                        free(&mut book, user);
                    }
                    found
                };
                if let Some((watcher, _)) = watcher {
                    watcher(Event::Exited(status, usage));
                }
            }
            Report::Configured { .. } | Report::Failed { .. } => break,
        }
    }
    let (orders, watchers) = {
        let mut book = lock(book);
        book.ended = true;
        (
            std::mem::take(&mut book.orders),
            std::mem::take(&mut book.watchers),
        )
    };
    for waiting in orders.into_values() {
        let _ = waiting.send(Err(LauncherError::Ended));
    }
    for (watcher, _) in watchers.into_values() {
        watcher(Event::LauncherEnded);
    }
}

/// An id may be used again once its worker is gone.
fn free(book: &mut Book, user: u32) {
    if book.last_user - book.next_user > 1 || user < book.next_user {
        book.free_users.push(user);
    }
}
