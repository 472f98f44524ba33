//! What is known of a tenant without calling it.

/// What is known of a tenant without calling it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
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
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Methods that can be called, with `update` or `query`.
    pub methods: Vec<String>,
    /// Number of an idle worker's process, if one lives.
    pub worker: Option<i32>,
    /// Numbers of all idle workers' processes.
    pub workers: Vec<i32>,
}
