//! What a host's pool of workers may do.

use std::num::NonZeroUsize;
use std::time::Duration;

/// What the pool of a host's workers may do. It is about those of tenants:
/// programs have their own for as long as they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Launchers that workers come from, in turns.
    pub launchers: NonZeroUsize,
    /// Blank workers that wait for a tenant, at most: how many do follows what was
    /// wanted at once lately.
    pub blanks: usize,
    /// After how long without a call a worker leaves; never, if there is none. The
    /// tenant's next call starts another, where it was.
    pub idle: Option<Duration>,
    /// How many workers there may be, beside blank ones and those whose end is under
    /// way. Idle ones leave for others; if all are busy, a call waits for one, for as
    /// long as it may take.
    pub workers: Option<NonZeroUsize>,
}

impl Default for PoolOptions {
    /// One launcher, up to 8 blanks; workers leave after 60 s without a call, and
    /// there may be as many as the machine bears.
    fn default() -> Self {
        Self {
            launchers: NonZeroUsize::MIN,
            blanks: 8,
            idle: Some(Duration::from_secs(60)),
            workers: None,
        }
    }
}
