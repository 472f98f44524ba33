//! Putting a tenant on disk at a version, while its calls go on.

use std::fmt;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use lazaret_image::{Checkpointer, Image, SyncError};
use thiserror::Error;

use super::{Shared, Tenant};

/// Log that is on disk but not recorded as such, in bytes, from which on a
/// checkpoint records it. The next open verifies what isn't recorded: that many
/// bytes take it some milliseconds. To record takes two more syncs, half a
/// millisecond and up, which would be most of what a small checkpoint costs.
const WORTH_RECORDING: u64 = 16 << 20;

/// A version that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// This version of the tenant's memory, and all before it, survive the end
    /// of the machine.
    pub version: u64,
    /// Pages of 4 KiB that updates have stored since the checkpoint before, or
    /// since the tenant was opened.
    pub pages: u64,
    /// How long it kept updates from beginning.
    pub pause: Duration,
    /// How long it took.
    pub time: Duration,
}

/// Why no checkpoint was made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The tenant was removed.
    #[error("tenant `{0}` was removed")]
    Removed(String),
    /// It isn't known what is on disk. If a sync failed, the tenant takes no
    /// more updates until it is opened again.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// How a tenant gets on disk.
pub(super) struct Checkpoints {
    checkpointer: Checkpointer,
    /// Whether one is made when the tenant is let go: with relaxed durability,
    /// what was acknowledged is in the page cache only.
    pub(super) at_close: bool,
}

impl Checkpoints {
    /// Of a tenant with this image; none at its close.
    pub(super) fn of(image: &Image) -> Self {
        Self {
            checkpointer: image.checkpointer(),
            at_close: false,
        }
    }
}

impl fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoints")
            .field("at_close", &self.at_close)
            .finish_non_exhaustive()
    }
}

impl Tenant {
    /// Puts the newest committed version on disk. After that a power cut leaves
    /// this version or a later one, also with relaxed durability
    /// ([`Builder::relaxed_durability`](crate::Builder::relaxed_durability)).
    ///
    /// It costs the pages that were written since the last time, not the
    /// state's size, and calls go on meanwhile, updates too. They are kept
    /// waiting only if so much has come together that it is worth writing down
    /// that it is on disk, so that the next host to open the tenant needn't
    /// verify it; [`Checkpoint::pause`] says how long. While an update runs
    /// that is left to another time.
    ///
    /// # Errors
    ///
    /// If the operating system can't put the tenant's files on disk.
    pub fn checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        let begin = Instant::now();
        let shared = &self.shared;
        let synced = shared.checkpoints.checkpointer.sync()?;
        let mut pause = Duration::ZERO;
        if let Some(mut lane) = shared.idle_lane() {
            let begin = Instant::now();
            if lane.removed {
                return Err(CheckpointError::Removed(shared.name.clone()));
            }
            if lane.image.unrecorded() >= WORTH_RECORDING {
                // The version is on disk all the same.
                if let Err(error) = lane.image.record() {
                    tracing::warn!(tenant = shared.name, %error, "a checkpoint was not recorded");
                }
            }
            pause = begin.elapsed();
        }
        Ok(Checkpoint {
            version: synced.version.0,
            pages: synced.pages,
            pause,
            time: begin.elapsed(),
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let lane = self.lane.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !self.checkpoints.at_close || lane.removed {
            return;
        }
        if let Err(error) = lane.image.checkpoint() {
            tracing::error!(
                tenant = self.name,
                %error,
                "what was not on disk yet may be lost if the machine stops"
            );
        }
    }
}
