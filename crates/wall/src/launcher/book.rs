//! The host's book of workers: who waits for which, told by the launcher's
//! reports.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

use lazaret_wire::codec::Message;
use lazaret_wire::socket::Channel;

use super::error::{LauncherError, refusal};
use super::protocol::{ExitStatus, Report, Usage};
use crate::cgroup::MemoryKill;

/// A worker's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It ended so, used this, and was killed for memory or not.
    Exited(ExitStatus, Usage, MemoryKill),
    /// The launcher ended, and the worker with it.
    LauncherEnded,
}

/// A worker's pidfd, and whether it is in its control groups.
pub(super) type Answer = Result<(OwnedFd, bool), LauncherError>;

type Watcher = Box<dyn FnOnce(Event) + Send>;

#[derive(Default)]
pub(super) struct Book {
    /// Who waits for the answer to a spawn order.
    pub(super) orders: HashMap<u64, SyncSender<Answer>>,
    /// Who wants to know of a worker's end.
    pub(super) watchers: HashMap<u64, (Watcher, u32)>,
    pub(super) next_id: u64,
    /// Free user ids, inside the launcher's namespace.
    pub(super) free_users: Vec<u32>,
    pub(super) next_user: u32,
    pub(super) last_user: u32,
    pub(super) ended: bool,
}

/// The book; a thread that panicked left it whole.
pub(super) fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads reports until the launcher ends, then tells everybody.
pub(super) fn read_reports(channel: &Channel, book: &Mutex<Book>) {
    while let Ok(datagram) = channel.receive() {
        let Ok(report) = Report::from_bytes(&datagram.bytes) else {
            break;
        };
        match report {
            Report::Spawned { id, grouped } => {
                let waiting = lock(book).orders.remove(&id);
                if let (Some(waiting), Some(pidfd)) =
                    (waiting, datagram.descriptors.into_iter().next())
                {
                    let _ = waiting.send(Ok((pidfd, grouped)));
                }
            }
            Report::SpawnFailed {
                id,
                layer,
                message,
                errno,
            } => {
                let waiting = {
                    let mut book = lock(book);
                    if let Some((_, user)) = book.watchers.remove(&id) {
                        free(&mut book, user);
                    }
                    book.orders.remove(&id)
                };
                if let Some(waiting) = waiting {
                    let _ = waiting.send(Err(refusal(layer, message, errno)));
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
                    watcher(Event::Exited(status, usage, MemoryKill::Unknown));
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
