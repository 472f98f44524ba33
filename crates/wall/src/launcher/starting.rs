//! The start of a launcher: it gets ready while the host does something else.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use lazaret_wire::codec::Message;
use lazaret_wire::socket::{Channel, ChannelError, Datagram};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::Shutdown;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::birth::{DEPTH, depth, early_end, start};
use super::book::{Book, read_reports};
use super::client::Launcher;
use super::error::{LauncherError, PATIENCE, no_process, refusal};
use super::ids::HostIds;
use super::options::{Grants, LauncherOptions};
use super::protocol::{Configure, Report};
use super::root::Libraries;
use crate::cgroup::Cgroups;
use crate::executable::{Executable, Executables};
use crate::off::Off;
use crate::process::is_exiting;

/// A launcher that was told what it is to be, and gets ready. Dropping it ends it.
pub struct Starting {
    channel: Arc<Channel>,
    book: Arc<Mutex<Book>>,
    pid: i32,
    /// Nothing once it has become a launcher.
    process: Option<(OwnedFd, JoinHandle<()>)>,
    /// What it says first.
    answer: Receiver<Result<Datagram, ChannelError>>,
    off: Off,
    compiles: bool,
    ids: HostIds,
    cgroups: Option<Arc<Cgroups>>,
}

impl std::fmt::Debug for Starting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Starting").finish_non_exhaustive()
    }
}

impl Starting {
    /// Has a launcher born, and doesn't wait until it is ready.
    ///
    /// # Errors
    /// If it can't be born, with what was in the way.
    pub fn begin(options: &LauncherOptions) -> Result<Self, LauncherError> {
        let executable = options
            .executables
            .worker
            .open()
            .map_err(LauncherError::Executable)?;
        let compiler = match options.compiles {
            true => Some(options.executables.compiler.open()),
            false => None,
        };
        let compiler = compiler.transpose().map_err(LauncherError::Executable)?;
        let ids = HostIds::choose(options.as_user)?;
        let configure = configure(options)?;
        let depth = depth().saturating_add(1);
        let environment = CString::new(format!("{DEPTH}={depth}")).unwrap_or_default();

        let (ours, theirs) = Channel::pair()?;
        let group = options
            .cgroups
            .as_ref()
            .and_then(|cgroups| cgroups.launcher());
        let off = options.off;
        let (pid, pidfd) = start(&ours, theirs, &executable, &ids, &environment, group, off)?;
        let mut bytes = Vec::new();
        let mut handed = vec![executable.as_fd()];
        handed.extend(compiler.as_ref().map(AsFd::as_fd));
        let told = configure
            .to_bytes(&mut bytes)
            .map_err(|error| LauncherError::Failed(error.to_string()))
            .and_then(|()| Ok(ours.send(&bytes, &handed)?));
        if let Err(error) = told {
            return Err(end(pid, &pidfd, error));
        }
        let book = Arc::new(Mutex::new(Book {
            next_user: ids.first_id,
            last_user: ids.first_id.saturating_add(ids.ids),
            ..Book::default()
        }));
        let channel = Arc::new(ours);
        let (first, answer) = sync_channel(1);
        let reader = {
            let (channel, book) = (channel.clone(), book.clone());
            std::thread::Builder::new()
                .name("lazaret-launcher".into())
                .spawn(move || {
                    let _ = first.send(channel.receive());
                    read_reports(&channel, &book);
                })
        };
        let reader = match reader {
            Ok(reader) => reader,
            Err(error) => {
                let errno = Errno::from_io_error(&error);
                let error = no_process(None, format!("reader thread: {error}"), errno);
                return Err(end(pid, &pidfd, error));
            }
        };
        Ok(Self {
            channel,
            book,
            pid,
            process: Some((pidfd, reader)),
            answer,
            off,
            compiles: options.compiles,
            ids,
            cgroups: options.cgroups.clone(),
        })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// If it doesn't get ready, with what was in the way.
    pub fn finish(mut self) -> Result<Launcher, LauncherError> {
        let answer = match self.answer.recv_timeout(PATIENCE) {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.end(error.into())),
            Err(RecvTimeoutError::Timeout) => return Err(self.end(LauncherError::Silent)),
            Err(RecvTimeoutError::Disconnected) => {
                let error = LauncherError::Failed("nobody reads what it says".into());
                return Err(self.end(error));
            }
        };
        let (missing, directories) = match Report::from_bytes(&answer.bytes) {
            Ok(Report::Configured { missing }) => (missing, answer.descriptors),
            Ok(Report::Failed {
                layer,
                message,
                errno,
            }) => return Err(self.end(refusal(layer, message, errno))),
            other => {
                let error = LauncherError::Failed(format!("expected Configured, got {other:?}"));
                return Err(self.end(error));
            }
        };
        let Some((pidfd, reader)) = self.process.take() else {
            return Err(LauncherError::Ended);
        };
        Ok(Launcher {
            channel: self.channel.clone(),
            book: self.book.clone(),
            pidfd,
            missing: missing
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
            off: self.off,
            compiles: self.compiles,
            directories,
            ids: self.ids.clone(),
            cgroups: self.cgroups.take(),
            reader: Some(reader),
        })
    }

    /// Ends it for this error, or for how it has ended by itself.
    fn end(&mut self, error: LauncherError) -> LauncherError {
        let Some((pidfd, reader)) = self.process.take() else {
            return error;
        };
        let error = end(self.pid, &pidfd, error);
        self.join(reader);
        error
    }

    /// Waits for the reader's end. The launcher is gone.
    fn join(&self, reader: JoinHandle<()>) {
        // A copy of this process that somebody has made may have the other end too.
        let _ = rustix::net::shutdown(&*self.channel, Shutdown::Both);
        let _ = reader.join();
    }

    /// The number of its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let Some((pidfd, reader)) = self.process.take() else {
            return;
        };
        kill(&pidfd);
        let _ = wait(pidfd.as_fd());
        self.join(reader);
    }
}

/// Ends a launcher that can't be used for this. If somebody has killed it, or its socket is
/// closed as it has ended, that is why.
pub(super) fn end(pid: i32, pidfd: &OwnedFd, error: LauncherError) -> LauncherError {
    let closed = matches!(error, LauncherError::Channel(ChannelError::Closed));
    let ends = match closed || is_exiting(pid) {
        true => ended_within(pidfd.as_fd(), LAST_STEPS),
        false => false,
    };
    kill(pidfd);
    let status = wait(pidfd.as_fd());
    let unknown = status.is_err();
    match early_end(status) {
        killed @ LauncherError::EndedAtBirth(_) if ends => killed,
        ended if ends && (closed || unknown) => ended,
        _ => error,
    }
}

/// Waits until a child has ended: how.
pub(super) fn wait(pidfd: BorrowedFd<'_>) -> rustix::io::Result<Option<WaitIdStatus>> {
    let options = WaitIdOptions::EXITED;
    retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), options))
}

fn kill(pidfd: &OwnedFd) {
    // Whoever has ended can't be, and that is all right.
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
}

/// How long a process on its way out may take: its memory goes first, and may be as large as
/// the host's.
const LAST_STEPS: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Whether a process has ended within a time.
pub(super) fn ended_within(pidfd: BorrowedFd<'_>, time: Timespec) -> bool {
    let mut end = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let ended = retry_on_intr(|| rustix::event::poll(&mut end, Some(&time)));
    matches!(ended, Ok(1..))
}

/// What a launcher is told to be.
fn configure(options: &LauncherOptions) -> Result<Configure, LauncherError> {
    let directories = options
        .directories
        .iter()
        .map(Grants::directory)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Configure {
        directories,
        accept_missing: options
            .accept_missing
            .iter()
            .map(|layer| layer.name().to_owned())
            .collect(),
        off: options.off.names(),
        red_team: options.red_team,
        libraries: match (&options.executables, options.compiles) {
            (
                Executables {
                    worker: Executable::Image(_),
                    compiler: Executable::Own,
                },
                true,
            ) => Some(Libraries::own()),
            (
                Executables {
                    worker: Executable::Image(_),
                    ..
                },
                false,
            ) => None,
            _ => Some(Libraries::default()),
        },
    })
}
