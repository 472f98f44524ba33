//! The calls of one tenant that wait for their turn.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::tenant::{CallError, CallOptions, Reply};

/// The most bytes of arguments that wait for one tenant.
const MAX_BYTES: usize = 64 << 20;

/// Which kind of call: those of one kind wait behind each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Update,
    Query,
}

/// A call that is made when its turn comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedCall {
    pub(super) kind: Kind,
    pub(super) method: String,
    pub(super) argument: Vec<u8>,
    pub(super) options: CallOptions,
}

impl QueuedCall {
    fn new(kind: Kind, method: impl Into<String>, argument: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            method: method.into(),
            argument: argument.into(),
            options: CallOptions::default(),
        }
    }

    /// As [`Tenant::update`](crate::Tenant::update).
    pub fn update(method: impl Into<String>, argument: impl Into<Vec<u8>>) -> Self {
        Self::new(Kind::Update, method, argument)
    }

    /// As [`Tenant::query`](crate::Tenant::query).
    pub fn query(method: impl Into<String>, argument: impl Into<Vec<u8>>) -> Self {
        Self::new(Kind::Query, method, argument)
    }

    /// With these options.
    pub fn options(mut self, options: CallOptions) -> Self {
        self.options = options;
        self
    }
}

/// As many calls of a tenant wait as may. Worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "{calls} calls of the tenant with {bytes} bytes of arguments wait for their turn, and no more may: try again when some have ended, or let more wait (SchedulerOptions::queue, or smaller arguments: at most {MAX_BYTES} bytes wait)"
)]
pub struct QueueFull {
    /// How many wait.
    pub calls: usize,
    /// With how many bytes of arguments.
    pub bytes: usize,
}

/// Who is told what came of a call.
pub(super) type Answered = Box<dyn FnOnce(Result<Reply, CallError>) + Send>;

/// A call, and who is told of its end.
pub(super) struct Queued {
    pub call: QueuedCall,
    pub answered: Answered,
}

/// The calls of a tenant that wait.
#[derive(Default)]
pub(crate) struct CallQueue(Mutex<State>);

#[derive(Default)]
struct State {
    lines: [Line; 2],
    bytes: usize,
}

/// Calls of one kind.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Queued>,
    /// How many threads take from it, or will.
    turns: usize,
}

impl fmt::Debug for CallQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallQueue")
    }
}

impl CallQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call at its end. Whether the tenant is to have a turn for that.
    pub(super) fn push(&self, queued: Queued, most: usize) -> Result<bool, QueueFull> {
        let mut state = self.lock();
        let calls = state.lines.iter().map(|line| line.waiting.len()).sum();
        let bytes = state.bytes.saturating_add(queued.call.argument.len());
        if calls >= most || bytes > MAX_BYTES {
            return Err(QueueFull {
                calls,
                bytes: state.bytes,
            });
        }
        state.bytes = bytes;
        let line = &mut state.lines[queued.call.kind as usize];
        line.waiting.push_back(queued);
        let first = line.turns == 0;
        line.turns += usize::from(first);
        Ok(first)
    }

    /// The next call of this kind, and whether there is one behind it.
    pub(super) fn pop(&self, kind: Kind) -> Option<(Queued, bool)> {
        let mut state = self.lock();
        let line = &mut state.lines[kind as usize];
        let queued = line.waiting.pop_front()?;
        let more = !line.waiting.is_empty();
        state.bytes -= queued.call.argument.len();
        Some((queued, more))
    }

    /// A turn is over. Whether another one is to follow it.
    pub(super) fn end_turn(&self, kind: Kind) -> bool {
        let line = &mut self.lock().lines[kind as usize];
        let goes_on = !line.waiting.is_empty();
        line.turns -= usize::from(!goes_on);
        goes_on
    }

    /// Another turn beside those there are, if anybody waits behind them and no more than
    /// `most` are at it then. Whether there is one.
    pub(super) fn another_turn(&self, kind: Kind, most: usize) -> bool {
        let line = &mut self.lock().lines[kind as usize];
        let another = !line.waiting.is_empty() && line.turns < most;
        line.turns += usize::from(another);
        another
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(call: QueuedCall) -> Queued {
        Queued {
            call,
            answered: Box::new(|_| ()),
        }
    }

    #[test]
    fn a_tenant_has_one_turn_until_nothing_waits() {
        let queue = CallQueue::default();
        let update = |n: u8| queued(QueuedCall::update("m", [n]));
        assert_eq!(queue.push(update(1), 9), Ok(true));
        assert_eq!(queue.push(update(2), 9), Ok(false));
        // The other kind has its own.
        assert_eq!(queue.push(queued(QueuedCall::query("m", [])), 9), Ok(true));
        let next = || {
            queue
                .pop(Kind::Update)
                .map(|(next, _)| next.call.argument[0])
        };
        assert_eq!(next(), Some(1));
        assert!(queue.end_turn(Kind::Update));
        assert_eq!((next(), next()), (Some(2), None));
        assert!(!queue.end_turn(Kind::Update));
        assert_eq!(queue.push(update(3), 9), Ok(true));
    }

    #[test]
    fn only_who_waits_behind_others_gets_another_turn() {
        let queue = CallQueue::default();
        let query = || queued(QueuedCall::query("m", []));
        assert!(!queue.another_turn(Kind::Query, 2));
        queue.push(query(), 9).unwrap();
        queue.pop(Kind::Query).unwrap();
        assert!(!queue.another_turn(Kind::Query, 2));
        queue.push(query(), 9).unwrap();
        assert!(!queue.another_turn(Kind::Query, 1));
        assert!(queue.another_turn(Kind::Query, 2));
        assert!(!queue.another_turn(Kind::Query, 2));
    }

    #[test]
    fn no_more_wait_than_may() {
        let queue = CallQueue::default();
        let call = |bytes: usize| queued(QueuedCall::update("m", vec![0; bytes]));
        queue.push(call(10), 2).unwrap();
        queue.push(call(20), 2).unwrap();
        let full = queue.push(call(0), 2).unwrap_err();
        assert_eq!((full.calls, full.bytes), (2, 30));
        let full = queue.push(call(MAX_BYTES - 29), 9).unwrap_err();
        assert_eq!((full.calls, full.bytes), (2, 30));
        queue.pop(Kind::Update).unwrap();
        assert_eq!(queue.push(call(MAX_BYTES - 29), 9), Ok(false));
    }
}
