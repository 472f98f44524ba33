//! Incidents: what a worker did that no worker should, on record.
//!
//! Each is one [`Incident`]: what happened, to whom, which layer met it, how
//! bad it is, what it means in plain words, what to do, and the evidence. It
//! is a file in the data directory ([`Store`]), an event of the `tracing`
//! crate, and a call of the operator's hook. Its JSON has a schema number and
//! members that are only ever added.
//!
//! An ordinary trap of a guest is none: that is between the guest and its
//! caller.

mod hook;
mod requests;
mod store;
mod words;

use serde::{Deserialize, Serialize};

use lazaret_wall::supervisor::{ForbiddenCall, Registers};

pub use hook::Hook;
pub(crate) use hook::Running;
pub(crate) use requests::{Noted, Recent};
pub use requests::{RanOn, Request};
pub(crate) use store::DIRECTORY;
pub use store::{Entry, Retention, Store, StoreError};

/// The version of the record's members.
pub const SCHEMA: u32 = 1;

/// How bad an incident is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A limit did its work: no sign of malice.
    Low,
    /// Something broke by itself: a defect of Lazaret's or the engine's.
    Medium,
    /// Something broke as it may when somebody looks for a way out.
    High,
    /// Code ran that the engine doesn't make: a break-out of the engine was
    /// tried, and met the wall.
    Critical,
}

impl Severity {
    /// All, from the least.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no severity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no severity: low, medium, high or critical")]
pub struct UnknownSeverity(pub String);

impl std::str::FromStr for Severity {
    type Err = UnknownSeverity;

    fn from_str(name: &str) -> Result<Self, UnknownSeverity> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.name() == name)
            .ok_or_else(|| UnknownSeverity(name.to_owned()))
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
#[non_exhaustive]
pub enum What {
    /// A worker tried a system call that is not on its list.
    ForbiddenCall {
        /// Which, if the kernel could tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<ForbiddenCall>,
    },
    /// What a worker wrote on the wire makes no sense.
    MalformedWire {
        /// What is wrong with it.
        problem: String,
    },
    /// A worker exited, which none is ever asked to.
    UnaskedExit {
        /// The exit code.
        code: i32,
    },
    /// A worker crashed outside of guest code.
    Crash {
        /// The signal.
        signal: i32,
        /// What it said of it: the address that it touched, and from where.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        said: Option<String>,
    },
    /// A worker touched a canary page: memory beside what it shares with its
    /// host, which nothing in it ever uses.
    CanaryTouched {
        /// What it said of it: the address, and from where.
        said: String,
    },
    /// Somebody killed a worker who was not its host: the kernel's
    /// out-of-memory killer, or another process.
    Killed {
        /// The signal.
        signal: i32,
    },
    /// A worker ended itself and said why.
    Aborted {
        /// Why.
        reason: String,
        /// In its words.
        said: String,
    },
    /// A worker no longer looks from outside as it did when its receipt was
    /// written.
    PostureChanged {
        /// What differs.
        differences: Vec<String>,
    },
    /// A limit was reached.
    Limit {
        /// Which: `memory`, `cpu-time`, `time`.
        limit: String,
        /// What is known.
        detail: String,
    },
}

/// Whose worker it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The tenant, if it was one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What it was for: `tenant`, `program` or `compiler`; `blank` if it wasn't told
    /// yet.
    pub worker: String,
    /// The module's hash (blake3, hex), if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The worker's number on the host.
    pub pid: i32,
    /// `/proc/PID/syscall` while it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_call: Option<String>,
    /// Its registers while it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registers: Option<Registers>,
    /// Its stack while it was stopped, innermost frame first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Frame>,
    /// Its mappings while it was stopped: the lines of `/proc/PID/maps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<String>,
    /// The last requests that it was sent, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
    /// What the last of them ran on, if it happened in a tenant's call: those
    /// can run again ([`Host::replay`](crate::Host::replay)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_on: Option<RanOn>,
    /// The receipt of its wall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<serde_json::Value>,
    /// What could not be had, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// One frame of a worker's stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Its address in the worker.
    pub address: u64,
    /// Which mapping that is in, and how far from its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<String>,
    /// The function, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Its place in the source, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// One incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// The version of this record: [`SCHEMA`].
    pub schema: u32,
    /// Its name: the time and a random number. Names sort by time.
    pub id: String,
    /// When, in UTC (RFC 3339).
    pub at: String,
    /// How bad it is.
    pub severity: Severity,
    /// Whose worker it was.
    #[serde(flatten)]
    pub subject: Subject,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// The layer that met it.
    pub layer: String,
    /// What that means, in plain words.
    pub explanation: String,
    /// What to do.
    pub advice: String,
    /// What was seen.
    pub evidence: Evidence,
}

impl Incident {
    /// What happened at the time of `stamp`.
    pub(crate) fn new(stamp: Stamp, subject: Subject, what: What, evidence: Evidence) -> Self {
        let words = words::of(&what, &subject);
        Self {
            schema: SCHEMA,
            id: stamp.id,
            at: stamp.at,
            severity: words.severity,
            subject,
            what,
            layer: words.layer.to_owned(),
            explanation: words.explanation,
            advice: words.advice.to_owned(),
            evidence,
        }
    }
}

/// The name and the time of an incident that is just being looked into.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    pub(crate) id: String,
    at: String,
}

impl Stamp {
    pub(crate) fn now() -> Self {
        let now = jiff::Timestamp::now();
        Self {
            id: store::id(now),
            at: now.to_string(),
        }
    }
}
