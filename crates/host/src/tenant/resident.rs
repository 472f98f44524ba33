//! What a tenant's workers have in memory, as the kernel counts it.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use crate::ending::Death;
use crate::worker::Worker;

/// Memory of a tenant's workers, in bytes.
///
/// A page that several processes map is divided among them (the proportional set
/// size, PSS, of `/proc/PID/smaps_rollup`; kernel:
/// `Documentation/filesystems/proc.rst`). So the pages of an image that all
/// workers of a tenant map count once in the tenant's sum, and those that it
/// shares with forks, or with every worker (the executable), count in part. The
/// sum over all tenants is what their workers have in memory together. Pages
/// that no worker maps, though the kernel has them cached, aren't anybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Resident {
    /// Workers that were looked at: idle ones and those that run a call.
    pub workers: usize,
    /// Bytes in memory: what follows, together.
    pub resident_bytes: u64,
    /// Bytes that nobody else maps: free once the workers end (or, if they are
    /// unchanged pages of files, reclaimable).
    pub private_bytes: u64,
    /// This tenant's part of pages that several processes map, be it several of
    /// its own workers.
    pub shared_bytes: u64,
    /// Bytes in swap, beside those in memory.
    pub swapped_bytes: u64,
    /// Whether shared pages are divided among those that map them. If the kernel
    /// refuses that for any of the workers, they count in full in each such
    /// worker, and swap isn't known (`/proc/PID/statm`).
    pub proportional: bool,
}

/// The workers of a tenant that live, whatever they are at.
#[derive(Debug, Default)]
pub(super) struct Census(Mutex<Living>);

#[derive(Debug, Default)]
struct Living {
    workers: Vec<(i32, Weak<Death>)>,
    /// Whether the pool knows of the tenant.
    listed: bool,
}

impl Census {
    /// A worker was born.
    pub(super) fn enter(&self, worker: &Worker) {
        let mut living = self.lock();
        living.workers.retain(|(_, death)| lives(death));
        living.workers.push((worker.pid(), worker.death()));
    }

    fn lock(&self) -> MutexGuard<'_, Living> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many live.
    pub(super) fn count(&self) -> usize {
        let living = self.lock();
        living
            .workers
            .iter()
            .filter(|(_, death)| lives(death))
            .count()
    }

    /// Whether the pool is to be told of the tenant, which it now is.
    pub(super) fn list(&self) -> bool {
        !std::mem::replace(&mut self.lock().listed, true)
    }

    /// Whether no worker lives: then the pool forgets the tenant.
    pub(super) fn unlist(&self) -> bool {
        let mut living = self.lock();
        living.workers.retain(|(_, death)| lives(death));
        let left = living.workers.is_empty();
        living.listed &= !left;
        left
    }

    /// What they have in memory; nothing if none lives.
    pub(super) fn resident(&self) -> Option<Resident> {
        let list = self.lock().workers.clone();
        let mut sum = Resident {
            proportional: true,
            ..Resident::default()
        };
        for (pid, death) in list {
            if !lives(&death) {
                continue;
            }
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
            let one = read("smaps_rollup")
                .and_then(|text| from_rollup(&text))
                .or_else(|| from_statm(&read("statm")?));
            // One that ended meanwhile may have left its number to another process.
            let Some(one) = one.filter(|_| lives(&death)) else {
                continue;
            };
            sum.workers += 1;
            sum.resident_bytes += one.resident_bytes;
            sum.private_bytes += one.private_bytes;
            sum.shared_bytes += one.shared_bytes;
            sum.swapped_bytes += one.swapped_bytes;
            sum.proportional &= one.proportional;
        }
        (sum.workers > 0).then_some(sum)
    }
}

fn lives(death: &Weak<Death>) -> bool {
    death.upgrade().is_some_and(|death| !death.has_come())
}

/// From `/proc/PID/smaps_rollup`: lines of a name, a number and `kB`.
fn from_rollup(text: &str) -> Option<Resident> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let number = line.strip_prefix(':')?.split_whitespace().next()?;
        number.parse::<u64>().ok()?.checked_mul(1024)
    };
    let resident_bytes = field("Pss")?;
    let private = field("Private_Clean")?.saturating_add(field("Private_Dirty")?);
    let private_bytes = private.min(resident_bytes);
    Some(Resident {
        workers: 1,
        resident_bytes,
        private_bytes,
        shared_bytes: resident_bytes - private_bytes,
        swapped_bytes: field("SwapPss").unwrap_or(0),
        proportional: true,
    })
}

/// From `/proc/PID/statm`: pages of size, resident, and those of them that are
/// of files or shared memory (proc(5)).
fn from_statm(text: &str) -> Option<Resident> {
    let mut numbers = text.split_whitespace().skip(1);
    let mut pages = || numbers.next()?.parse::<u64>().ok();
    let page = rustix::param::page_size() as u64;
    let resident_bytes = pages()?.checked_mul(page)?;
    let shared_bytes = pages()?.checked_mul(page)?.min(resident_bytes);
    Some(Resident {
        workers: 1,
        resident_bytes,
        private_bytes: resident_bytes - shared_bytes,
        shared_bytes,
        swapped_bytes: 0,
        proportional: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let text = "7ffd000-7ffe000 ---p 00000000 00:00 0    [rollup]\nRss:  2044 kB\n\
            Pss:                 369 kB\nPss_Dirty:  323 kB\nPss_Anon: 323 kB\n\
            Shared_Clean: 1188 kB\nPrivate_Clean:  4 kB\nPrivate_Dirty:  160 kB\n\
            Swap: 9 kB\nSwapPss: 8 kB\n";
        let resident = from_rollup(text).unwrap();
        assert_eq!(resident.resident_bytes, 369 << 10);
        assert_eq!(resident.private_bytes, 164 << 10);
        assert_eq!(resident.shared_bytes, 205 << 10);
        assert_eq!(resident.swapped_bytes, 8 << 10);
        assert!(resident.proportional);
        assert_eq!(from_rollup("Rss: 5 kB\n"), None);
        assert_eq!(from_rollup("Pss: x kB\nPrivate_Clean: 0 kB\n"), None);
        let resident = from_statm("1000 50 20 5 0 60 0\n").unwrap();
        let page = rustix::param::page_size() as u64;
        assert_eq!(
            (
                resident.resident_bytes,
                resident.private_bytes,
                resident.shared_bytes
            ),
            (50 * page, 30 * page, 20 * page)
        );
        assert!(!resident.proportional && from_statm("1 2").is_none());
    }

    #[test]
    fn this_process_can_be_read_both_ways() {
        let rollup = from_rollup(&fs::read_to_string("/proc/self/smaps_rollup").unwrap()).unwrap();
        let statm = from_statm(&fs::read_to_string("/proc/self/statm").unwrap()).unwrap();
        assert!(rollup.resident_bytes > 0 && rollup.resident_bytes <= 2 * statm.resident_bytes);
        assert_eq!(
            statm.private_bytes + statm.shared_bytes,
            statm.resident_bytes
        );
    }
}
