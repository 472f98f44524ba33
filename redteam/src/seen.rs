//! How an attack ended, as the host saw it.

use lazaret::{CallError, Ending, Reply};

use crate::attack::Expected;

/// How an attack ended, as the host saw it.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// It answered.
    Reply(String),
    /// Its worker ended so.
    Ended(Ending),
    /// It said nothing in time.
    Silence,
    /// Its pages could not be copied.
    Unreadable(String),
    /// Anything else.
    Other(String),
}

impl Seen {
    /// A call of a tenant.
    pub fn call(result: Result<Reply, CallError>) -> Self {
        match result {
            Ok(reply) => Self::Reply(String::from_utf8_lossy(&reply.bytes).into_owned()),
            Err(CallError::WorkerEnded(ending)) => Self::Ended(ending),
            Err(CallError::TimeLimit(_)) => Self::Silence,
            Err(error @ (CallError::Memory(_) | CallError::Commit(_))) => {
                Self::Unreadable(error.to_string())
            }
            Err(error) => Self::Other(format!("{error:?}")),
        }
    }

    /// Whether it is how the attack should end.
    pub fn is(&self, expected: Expected) -> bool {
        match (self, expected) {
            (Self::Ended(Ending::Violation(_)), Expected::Violation)
            | (Self::Ended(Ending::Malformed(_)), Expected::Malformed)
            | (Self::Ended(Ending::OutOfMemory { .. }), Expected::OutOfMemory)
            | (Self::Silence, Expected::Silence)
            | (Self::Unreadable(_), Expected::Unreadable) => true,
            (Self::Ended(Ending::Aborted { reason, .. }), Expected::Aborted(wanted)) => {
                *reason == wanted
            }
            (Self::Ended(Ending::Signal(signal)), Expected::Signal(wanted)) => *signal == wanted,
            (Self::Ended(Ending::Exited(code)), Expected::Exited(wanted)) => *code == wanted,
            (Self::Reply(text), Expected::Reply(start)) => text.starts_with(start),
            _ => false,
        }
    }
}
