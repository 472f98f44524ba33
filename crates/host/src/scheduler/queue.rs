//! The calls of one tenant that wait for their turn.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::tenant::{CallError, CallOptions, Kind, Reply};

/// The most bytes of arguments that wait for one tenant.
const MAX_BYTES: usize = 64 << 20;

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
    /// Those of them whose call takes long.
    long: usize,
}

impl Line {
    /// Whether whoever waits needs another turn: nobody is about to come round to it, and
    /// no more than `most` are at it then.
    fn another(&mut self, kind: Kind, most: usize) -> bool {
        let most = match kind {
            // They wait for each other.
            Kind::Update => 1,
            Kind::Query => most,
        };
        let another =
            !self.waiting.is_empty() && self.turns == self.long && self.turns < most.max(1);
        self.turns += usize::from(another);
        another
    }
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

    /// Puts a call at its end, where at most `most` wait and `queries` queries run. Whether
    /// the tenant is to have a turn for that.
    pub(super) fn push(
        &self,
        queued: Queued,
        most: usize,
        queries: usize,
    ) -> Result<bool, QueueFull> {
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
        let kind = queued.call.kind;
        let line = &mut state.lines[kind as usize];
        line.waiting.push_back(queued);
        Ok(line.another(kind, queries))
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

    /// A turn is over, whose last call was marked as long or not. Whether another one is
    /// to follow it.
    pub(super) fn end_turn(&self, kind: Kind, long: bool) -> bool {
        let line = &mut self.lock().lines[kind as usize];
        line.long -= usize::from(long);
        let goes_on = !line.waiting.is_empty();
        line.turns -= usize::from(!goes_on);
        goes_on
    }

    /// The call of one of its turns takes long. Whether there is to be another turn for
    /// those that wait behind it.
    pub(super) fn mark_long(&self, kind: Kind, queries: usize) -> bool {
        let line = &mut self.lock().lines[kind as usize];
        line.long += 1;
        line.another(kind, queries)
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
        assert_eq!(queue.push(update(1), 9, 2), Ok(true));
        assert_eq!(queue.push(update(2), 9, 2), Ok(false));
        // The other kind has its own.
        assert_eq!(
            queue.push(queued(QueuedCall::query("m", [])), 9, 2),
            Ok(true)
        );
        let next = || {
            queue
                .pop(Kind::Update)
                .map(|(next, _)| next.call.argument[0])
        };
        assert_eq!(next(), Some(1));
        assert!(queue.end_turn(Kind::Update, false));
        assert_eq!((next(), next()), (Some(2), None));
        assert!(!queue.end_turn(Kind::Update, false));
        assert_eq!(queue.push(update(3), 9, 2), Ok(true));
    }

    #[test]
    fn only_who_waits_behind_long_calls_gets_another_turn() {
        let queue = CallQueue::default();
        let push = |call| queue.push(queued(call), 9, 2).unwrap();
        let query = || push(QueuedCall::query("m", []));
        assert!(query());
        queue.pop(Kind::Query).unwrap();
        // Nobody waits yet; whoever comes later does.
        assert!(!queue.mark_long(Kind::Query, 2));
        assert!(query());
        // Somebody comes round to it.
        assert!(!query());
        queue.pop(Kind::Query).unwrap();
        // No more than two at once.
        assert!(!queue.mark_long(Kind::Query, 2));
        assert!(!query());
        assert!(queue.end_turn(Kind::Query, true));
        queue.pop(Kind::Query).unwrap();
        queue.pop(Kind::Query).unwrap();
        assert!(!queue.end_turn(Kind::Query, false));
        assert!(query());
        queue.pop(Kind::Query).unwrap();
        assert!(!queue.end_turn(Kind::Query, false));
        assert!(!queue.end_turn(Kind::Query, true));
        // Updates wait for each other.
        let update = || push(QueuedCall::update("m", []));
        assert!(update());
        assert!(!update());
        assert!(!queue.mark_long(Kind::Update, 2));
        assert!(!update());
    }

    #[test]
    fn no_more_wait_than_may() {
        let queue = CallQueue::default();
        let call = |bytes: usize| queued(QueuedCall::update("m", vec![0; bytes]));
        queue.push(call(10), 2, 2).unwrap();
        queue.push(call(20), 2, 2).unwrap();
        let full = queue.push(call(0), 2, 2).unwrap_err();
        assert_eq!((full.calls, full.bytes), (2, 30));
        let full = queue.push(call(MAX_BYTES - 29), 9, 2).unwrap_err();
        assert_eq!((full.calls, full.bytes), (2, 30));
        queue.pop(Kind::Update).unwrap();
        assert_eq!(queue.push(call(MAX_BYTES - 29), 9, 2), Ok(false));
    }
}
