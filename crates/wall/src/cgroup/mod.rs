//! Control groups: what the kernel counts, and limits, for all of a worker.
//!
//! Limits underneath (RLIMIT_DATA and the engine's) bound what a worker asks
//! for. A control group bounds what it *has*: its memory with the page tables
//! and socket buffers that the kernel keeps for it, its share of processors and
//! disks beside its neighbours, and the number of its tasks.
//!
//! A host that may write control groups makes one for each worker, in the group
//! that the host itself is in (`parent.rs`): with version 1 a directory in each
//! controller's hierarchy, with version 2 a directory in a tree of the host's
//! own. A worker is in its group before it is executed. Groups are made ahead
//! and used again ([`Cgroups`]); names say whose they are (`name.rs`), so that a
//! host removes what one that was killed has left.
//!
//! # What the memory number means
//!
//! A page is charged once, to the group of whoever touched it first
//! (kernel: Documentation/admin-guide/cgroup-v2.rst, "Memory Ownership"). A
//! tenant's image is page cache: its first worker is charged for the pages that
//! it reads first, its others read them for nothing, and pages that were in the
//! cache before stay charged to somebody else. So the sum over a tenant's workers
//! counts each page of the image at most once, and says nothing of how many of
//! them use it. Clean page cache is given back before anybody is killed: a worker
//! whose image is larger than its group's limit runs, if need be with more reads.
//! Pages of a file system in memory can't be given back so: a data directory there
//! is charged to the host that wrote it, and a program's files to the program.
//!
//! Kernel documentation: Documentation/admin-guide/cgroup-v2.rst and
//! Documentation/admin-guide/cgroup-v1/.

mod controller;
mod error;
mod evidence;
mod group;
mod hierarchy;
mod limits;
mod name;
mod parent;
mod pool;
mod probe;
mod surroundings;
mod usage;

#[cfg(test)]
mod imitation;

pub use controller::Controller;
pub use error::CgroupError;
pub use evidence::{Evidence, Put};
pub use group::{Entrance, Lease};
pub use hierarchy::{Hierarchy, Version, hierarchies};
pub use limits::{CgroupOptions, LimitsError, MIN_WORKER_MEMORY, Mode};
pub use pool::Cgroups;
pub use probe::{Availability, Probed};
pub use usage::{GroupUsage, MemoryKill};
