//! Which errors are worth another try: those that come of what others need, or of limits
//! of the host.

use lazaret_image::CommitError;
use lazaret_wall::Shortage;

use super::error::{CallError, TenantError};

impl CallError {
    /// Whether the same call may succeed later as nothing is wrong with it: somebody else
    /// needed what it needed, or something that was in its way ended.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Shortage { .. }
            | Self::Aborted(_)
            | Self::NodeMemory(_)
            | Self::HeldBack(_)
            | Self::AllBusy(_)
            | Self::Busy { .. }
            | Self::QueueFull(_) => true,
            Self::WorkerEnded(ending) => ending.was_not_its_own(),
            Self::Worker(error) => error.was_killed(),
            Self::Compile(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// The same, with what the host has too little of if it comes of that.
    pub(crate) fn or_shortage(self) -> Self {
        let told = match self {
            // What is on disk isn't known, so it isn't for want of anything.
            Self::Commit(CommitError::Sync(_) | CommitError::Poisoned { .. }) => None,
            // Nor whether it is the old base or the new one.
            Self::Fold(_) => None,
            Self::Shortage { .. } => None,
            _ => Shortage::behind(&self),
        };
        match told {
            Some(shortage) => Self::Shortage {
                shortage,
                error: Box::new(self),
            },
            None => self,
        }
    }
}

impl TenantError {
    /// Whether the same may succeed later, as nothing is wrong with what was asked
    /// ([`CallError::is_retryable`]).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Shortage { .. } | Self::NodeMemory(_) | Self::Busy { .. } => true,
            Self::Compile(error) => error.is_retryable(),
            Self::Call { error, .. } => error.is_retryable(),
            _ => false,
        }
    }

    /// The same, with what the host has too little of if it comes of that.
    pub(crate) fn or_shortage(self) -> Self {
        match self {
            Self::Call { step, error } => Self::Call {
                step,
                error: Box::new(error.or_shortage()),
            },
            Self::Shortage { .. } => self,
            other => match Shortage::behind(&other) {
                Some(shortage) => Self::Shortage {
                    shortage,
                    error: Box::new(other),
                },
                None => other,
            },
        }
    }
}
