//! The host's side of the launcher.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lazaret_wire::codec::Message;
use lazaret_wire::socket::{Channel, ChannelError};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::Signal;

use super::book::{Answer, Book, Event, lock};
use super::error::{LauncherError, PATIENCE, no_process};
use super::ids::HostIds;
use super::options::{LauncherOptions, Limits};
use super::protocol::{ExitStatus, Spawn};
use super::starting::{Starting, ended_within, wait};
use crate::cgroup::{Cgroups, Entrance, Lease, MemoryKill};
use crate::layer::Layer;
use crate::layers::rlimits;
use crate::off::Off;
use crate::process::is_exiting;

/// How long a launcher that ends its workers one by one may take.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// A worker that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Its number on the host.
    pub pid: i32,
    /// Its user id on the host.
    pub host_uid: u32,
    /// Its control group. It must be let go of before the worker's end matters:
    /// nobody else has the group as long as this is held.
    pub group: Option<Arc<Lease>>,
}

/// A running launcher. Dropping it ends it and all its workers.
pub struct Launcher {
    pub(super) channel: Arc<Channel>,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) pidfd: OwnedFd,
    pub(super) missing: Vec<Layer>,
    pub(super) off: Off,
    pub(super) compiles: bool,
    pub(super) directories: Vec<OwnedFd>,
    pub(super) ids: HostIds,
    pub(super) cgroups: Option<Arc<Cgroups>>,
    pub(super) reader: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launcher")
            .field("pidfd", &self.pidfd)
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

impl Launcher {
    /// Starts a launcher and waits until it is ready.
    ///
    /// # Errors
    /// If it can't be, with what was in the way.
    pub fn start(options: &LauncherOptions) -> Result<Self, LauncherError> {
        Starting::begin(options)?.finish()
    }

    /// Whether it starts workers that compile.
    pub fn compiles(&self) -> bool {
        self.compiles
    }

    /// Layers that the launcher could not put on (and was allowed not to).
    pub fn missing(&self) -> &[Layer] {
        &self.missing
    }

    /// Layers that its workers don't have, on purpose.
    pub fn off(&self) -> Off {
        self.off
    }

    /// Whether the host lowers the limit of a worker's descriptors once it is set up.
    /// Over a worker in a user namespace that it has made it may, and over one with its
    /// own ids; over one with other ids and no such namespace not every root may
    /// (`check_prlimit_permission`, kernel: kernel/sys.c), nor need it.
    pub fn lowers_limits(&self) -> bool {
        lowers_limits(self.off)
    }

    /// The granted directories, in the order of the options.
    pub fn directories(&self) -> &[OwnedFd] {
        &self.directories
    }

    /// The host uid that the first worker has.
    pub fn first_host_uid(&self) -> u32 {
        self.ids.host_uid(self.ids.first_id)
    }

    /// The control groups of its workers.
    pub fn cgroups(&self) -> Option<&Arc<Cgroups>> {
        self.cgroups.as_ref()
    }

    /// Has a worker started with these limits and this end of its set-up socket, in a
    /// control group of its own where there are any.
    /// What was sent into the other end before is there for it at once.
    /// `ended` is called once, from the launcher's reader thread, when it has
    /// ended.
    ///
    /// # Errors
    /// If it can't be asked for.
    pub fn order(
        &self,
        limits: Limits,
        setup: Channel,
        ended: impl FnOnce(Event) + Send + 'static,
    ) -> Result<Ordered<'_>, LauncherError> {
        let group = match &self.cgroups {
            Some(cgroups) => cgroups
                .take(
                    cgroups
                        .options()
                        .memory_of(limits.data, limits.file, !limits.compiler),
                )?
                .map(Arc::new),
            None => None,
        };
        let entrance = match &group {
            Some(group) => group.entrance()?,
            None => Entrance::default(),
        };
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        if let Some(hard) = hard.filter(|hard| *hard < limits.descriptors) {
            let needed = limits.descriptors;
            let message = format!(
                "a worker may need {needed} descriptors, and no process here may have more than {hard} (the hard limit)"
            );
            return Err(no_process(None, message, Some(Errno::MFILE)));
        }
        let (tell, end) = sync_channel(1);
        let ended = watch(group.clone(), limits.file > 0, move |event| {
            // Nobody asks as a rule.
            let _ = tell.try_send(event);
            ended(event);
        });
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
            book.watchers.insert(id, (ended, user));
            (id, user)
        };
        let order = Spawn {
            id,
            user: match self.off.has(Layer::UserNamespace) {
                true => self.ids.host_uid(user),
                false => user,
            },
            data_limit: limits.data,
            address_space: limits.address_space,
            descriptor_limit: match self.lowers_limits() {
                true => rlimits::at_birth(limits.descriptors),
                false => limits.descriptors,
            },
            file_limit: limits.file,
            cpu_seconds: limits.cpu_seconds,
            stack: limits.stack,
            compiler: limits.compiler,
            into: entrance.directory.is_some(),
        };
        let mut descriptors = vec![setup.as_fd()];
        descriptors.extend(entrance.directory.iter().map(AsFd::as_fd));
        descriptors.extend(entrance.tasks.iter().map(AsFd::as_fd));
        let mut bytes = Vec::new();
        order
            .to_bytes(&mut bytes)
            .map_err(|error| LauncherError::Failed(error.to_string()))?;
        self.channel
            .send(&bytes, &descriptors)
            .map_err(|error| match error {
                // Known before the reader comes round to it, so that whoever
                // tries again gets another launcher.
                ChannelError::Closed => {
                    lock(&self.book).ended = true;
                    LauncherError::Ended
                }
                other => other.into(),
            })?;
        Ok(Ordered {
            launcher: self,
            group,
            user,
            answer: receiver,
            end,
        })
    }

    /// Whether it runs, as far as is known.
    pub fn is_alive(&self) -> bool {
        !lock(&self.book).ended && !ended_within(self.pidfd.as_fd(), Timespec::default())
    }

    /// The launcher's number on the host.
    pub fn pid(&self) -> Option<i32> {
        pid_of(self.pidfd.as_fd()).ok().flatten()
    }
}

/// A worker that was asked for.
#[must_use]
#[derive(Debug)]
pub struct Ordered<'a> {
    launcher: &'a Launcher,
    group: Option<Arc<Lease>>,
    user: u32,
    answer: Receiver<Answer>,
    /// How it has ended.
    end: Receiver<Event>,
}

impl Ordered<'_> {
    /// Waits until it is started.
    ///
    /// # Errors
    /// If it isn't, with what was in the way.
    pub fn wait(self) -> Result<Spawned, LauncherError> {
        let Self {
            launcher,
            group,
            user,
            answer,
            end,
        } = self;
        let (pidfd, grouped) = answer
            .recv_timeout(PATIENCE)
            .map_err(|_| LauncherError::Silent)??;
        let pid = match pid_of(pidfd.as_fd()) {
            Ok(Some(pid)) => pid,
            Ok(None) => return Err(ended_at_once(&end)),
            Err(error) => {
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
                let errno = Errno::from_io_error(&error);
                return Err(no_process(
                    None,
                    format!("the worker's number: {error}"),
                    errno,
                ));
            }
        };
        if let Some(group) = group.as_ref().filter(|_| !grouped)
            && let Err(error) = group.enter(pid)
        {
            let gone = is_exiting(pid);
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            return Err(match gone {
                true => ended_at_once(&end),
                false => error.into(),
            });
        }
        Ok(Spawned {
            pidfd,
            pid,
            host_uid: launcher.ids.host_uid(user),
            group,
        })
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // Without a PID namespace its workers don't end with it just like that: it
        // ends them when the socket closes.
        if self.off.has(Layer::PidNamespace)
            && rustix::net::shutdown(&*self.channel, rustix::net::Shutdown::Both).is_ok()
        {
            let mut end = [PollFd::new(&self.pidfd, PollFlags::IN)];
            let patience = Timespec::try_from(LAST_STEPS).ok();
            let _ = rustix::event::poll(&mut end, patience.as_ref());
        }
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = wait(self.pidfd.as_fd());
        // What it has said is read all the same. A copy of this process that somebody has
        // made may have the other end too.
        let _ = rustix::net::shutdown(&*self.channel, rustix::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Why a worker is gone that was only just started.
fn ended_at_once(end: &Receiver<Event>) -> LauncherError {
    match end.recv_timeout(PATIENCE) {
        Ok(Event::Exited(_, _, MemoryKill::Yes { limit, at_limit })) if at_limit => {
            LauncherError::Failed(format!(
                "the worker was killed as it was born, at its control group's limit of {limit} bytes"
            ))
        }
        Ok(Event::Exited(ExitStatus::Signaled(libc::SIGKILL), ..)) => {
            LauncherError::EndedAtBirth("the worker")
        }
        Ok(Event::Exited(status, ..)) => {
            LauncherError::Failed(format!("the worker ended at once: {status:?}"))
        }
        Ok(Event::LauncherEnded) => LauncherError::Ended,
        Err(_) => LauncherError::Silent,
    }
}

/// [`Launcher::lowers_limits`], of launchers without these layers.
pub fn lowers_limits(off: Off) -> bool {
    let apart = off.has(Layer::UserNamespace) && rustix::process::geteuid().is_root();
    !off.has(Layer::Rlimits) && !apart
}

/// What is called when a worker has ended: asks its group first whether it was
/// killed for memory, and lets go of it.
///
/// The group of a worker that could write files isn't used again: what is left in
/// memory (a compiled module, files of a tmpfs) stays charged to it.
fn watch(
    group: Option<Arc<Lease>>,
    writes: bool,
    ended: impl FnOnce(Event) + Send + 'static,
) -> Box<dyn FnOnce(Event) + Send> {
    let Some(group) = group else {
        return Box::new(ended);
    };
    Box::new(move |event| {
        let event = match event {
            Event::Exited(status, usage, _) => {
                if writes {
                    group.spend();
                }
                let kill = match status {
                    ExitStatus::Signaled(libc::SIGKILL) => group.memory_kill(),
                    _ => MemoryKill::No,
                };
                Event::Exited(status, usage, kill)
            }
            // It may still be on its way out.
            Event::LauncherEnded => {
                group.spend();
                event
            }
        };
        drop(group);
        ended(event);
    })
}

/// The number of the process behind a pidfd, in the PID namespace of `/proc`.
/// Nothing if it has ended.
fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = line.and_then(|line| line.trim().parse().ok());
    Ok(pid.filter(|pid| *pid > 0))
}
