//! What is known of a tenant without calling it.

use super::Resident;
use crate::quarantine::Quarantined;

/// What is known of a tenant without calling it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct TenantInfo {
    /// Its name.
    pub name: String,
    /// Its principal, in hex.
    pub principal: String,
    /// Hash of its module (blake3), in hex.
    pub module: String,
    /// Version of its memory.
    pub version: u64,
    /// Bytes of heap.
    pub heap_bytes: u64,
    /// Bytes of stable memory.
    pub stable_bytes: u64,
    /// Bytes on disk of the files in its directory, those that it shares with
    /// forks and snapshots in full.
    pub disk_bytes: u64,
    /// What it may take of the disk, with its snapshots, if there is a quota
    /// ([`TenantLimits::disk`](crate::TenantLimits::disk)).
    pub disk_quota_bytes: Option<u64>,
    /// Methods that can be called, with `update` or `query`.
    pub methods: Vec<String>,
    /// Number of an idle worker's process, if one lives.
    pub worker: Option<i32>,
    /// Numbers of all idle workers' processes.
    pub workers: Vec<i32>,
    /// What its workers have in memory, idle or not; nothing if none lives. The
    /// kernel looks at every page of theirs for this, so it takes the longer the
    /// more they have.
    pub resident: Option<Resident>,
    /// Why it is in quarantine, if it is: none of its code runs.
    pub quarantined: Option<Quarantined>,
}
