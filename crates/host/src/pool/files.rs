//! The files of images that are open: a bounded number, whatever the number of
//! tenants.
//!
//! A tenant's image has some files, and its directory is one more. An idle worker
//! has mapped what it needs of them, so nobody needs their descriptors until the
//! next commit or start. What wasn't used for longest is closed when there are too
//! many; to open a file again takes microseconds.

use std::sync::Arc;
use std::time::Duration;

use lazaret_image::open_descriptors;
use rustix::process::{Resource, getrlimit};

use crate::tenant::Shared;

/// Which part of the descriptors that this process may have open are images'.
const PART: u64 = 8;
/// However few it may have.
const LEAST: u64 = 64;

/// How many descriptors of images may be open, of so many of this process.
fn most_of(limit: u64) -> usize {
    usize::try_from((limit / PART).max(LEAST)).unwrap_or(usize::MAX)
}

/// How many descriptors of images may be open.
pub(super) fn most() -> usize {
    most_of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// Closes files of those that were used longest ago, until half as many are open as
/// may be.
pub(super) fn close(tenants: Vec<Arc<Shared>>, most: usize) {
    let mut by_use: Vec<(Duration, Arc<Shared>)> = tenants
        .into_iter()
        .map(|tenant| (last_use(&tenant), tenant))
        .collect();
    by_use.sort_by_key(|(used, _)| *used);
    for (_, tenant) in &by_use {
        if open_descriptors() <= most / 2 {
            return;
        }
        tenant.close_files();
    }
}

/// When a tenant was used last: now, if it has a worker that isn't idle; long ago, if
/// it has none.
fn last_use(tenant: &Shared) -> Duration {
    let (mut last, mut idle) = (Duration::ZERO, 0);
    tenant.idle_workers(|_, since, _| {
        last = last.max(since);
        idle += 1;
    });
    match tenant.living_workers() > idle {
        true => Duration::MAX,
        false => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_of_all_is_for_images() {
        for (limit, expected) in [(64, 64), (1_024, 128), (20_000, 2_500)] {
            assert_eq!(most_of(limit), expected);
        }
    }
}
