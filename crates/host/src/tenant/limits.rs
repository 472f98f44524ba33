//! Limits of a tenant.

use std::time::Duration;

/// Limits of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantLimits {
    /// Bytes of heap: beyond it `memory.grow` is -1.
    pub heap: u64,
    /// Bytes of stable memory: beyond it `stable_grow` is -1.
    pub stable: u64,
    /// Bytes on disk that its state, the saved hashes of it and its snapshots may
    /// take; files that several of these share count once. A commit that would
    /// take more is refused ([`CallError::DiskQuota`](crate::CallError::DiskQuota)),
    /// unless compacting makes room. `None`, which is the default, is no quota but
    /// the disk's size.
    pub disk: Option<u64>,
    /// Fuel of an update, install or upgrade.
    pub update_fuel: u64,
    /// Fuel of a query.
    pub query_fuel: u64,
    /// Wall-clock time of a call: a safety net under the fuel. A call that
    /// exceeds it is stopped and changes nothing.
    pub time: Duration,
    /// Queries that run at the same time, each in a worker of its own; further
    /// ones wait. Updates run one after another, beside them.
    pub queries: usize,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            heap: 4 << 30,
            stable: 8 << 30,
            disk: None,
            update_fuel: 40_000_000_000,
            query_fuel: 5_000_000_000,
            time: Duration::from_secs(300),
            queries: 4,
        }
    }
}
