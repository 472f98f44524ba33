//! The report of a run.

use lazaret_wall::Receipt;
use serde::Serialize;

use super::learned::Learned;
use crate::incident::Incident;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// The program ended by itself, with its exit code.
    Exited,
    /// It trapped.
    Trapped,
    /// It used up its wall-clock or processor time.
    TimeLimit,
    /// It used up its fuel.
    FuelLimit,
    /// It ended for want of memory.
    MemoryLimit,
    /// It wrote more than it may.
    OutputLimit,
    /// It tried to leave: a forbidden system call, an exit that nobody asked
    /// for, nonsense on the wire.
    Violation,
    /// The module could not be run.
    InvalidModule,
    /// The host failed.
    HostError,
}

/// Where the snapshot that a program began from came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SnapshotUse {
    /// Its initialiser ran just before.
    Made,
    /// It was there.
    Used,
}

/// What is known about a run, for `--report`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// The program's exit code, or the one that stands for the verdict.
    pub exit_code: i32,
    /// More about it, for people: a trap's message and backtrace.
    pub detail: Option<String>,
    /// Wall-clock time from its start, in milliseconds.
    pub wall_ms: f64,
    /// Processor time of the whole worker, its start included, in milliseconds.
    pub cpu_ms: f64,
    /// The most bytes that its memories and tables had.
    pub peak_memory_bytes: u64,
    /// The most resident memory of the worker, in bytes.
    pub peak_resident_bytes: u64,
    /// Whether it was ever refused memory for its limit.
    pub memory_limit_hit: bool,
    /// Fuel used, if it was metered (`--fuel`).
    pub fuel_used: Option<u64>,
    /// Time to compile, in milliseconds; null if it was cached.
    pub compile_ms: Option<f64>,
    /// Time to start, set up, lock and verify the worker, in milliseconds.
    pub spawn_ms: f64,
    /// Bytes written to standard output and error.
    pub output_bytes: u64,
    /// Whether the output limit was reached.
    pub output_limit_hit: bool,
    /// Where its snapshot came from, if it began from one.
    pub snapshot: Option<SnapshotUse>,
    /// Time to make the snapshot, in milliseconds; null if there is none or it
    /// was there.
    pub snapshot_ms: Option<f64>,
    /// Bytes of the snapshot's pages.
    pub snapshot_bytes: Option<u64>,
    /// What kind of boundary it ran behind.
    pub tier: &'static str,
    /// What was verified about its worker.
    pub receipt: Option<Receipt>,
    /// What its worker did that no worker should, with the evidence.
    pub incident: Option<Box<Incident>>,
    /// What was learned of its calls, if it was learned from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned: Option<Box<Learned>>,
}

impl Report {
    /// The report of a run that never began.
    pub fn failed(verdict: Verdict, exit_code: i32, detail: String) -> Self {
        Self {
            verdict,
            exit_code,
            detail: Some(detail),
            wall_ms: 0.0,
            cpu_ms: 0.0,
            peak_memory_bytes: 0,
            peak_resident_bytes: 0,
            memory_limit_hit: false,
            fuel_used: None,
            compile_ms: None,
            spawn_ms: 0.0,
            output_bytes: 0,
            output_limit_hit: false,
            snapshot: None,
            snapshot_ms: None,
            snapshot_bytes: None,
            tier: "process",
            receipt: None,
            incident: None,
            learned: None,
        }
    }
}
