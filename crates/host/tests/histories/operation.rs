//! What is done to tenants, and what is seen of them: a line of JSON each, between a test and the host that it kills.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One operation. Tenants run `cells.wat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Builds the host, or drops the one there is and builds another.
    Open {
        /// Compiled code is kept in the data directory, not where all tests have it.
        own_cache: bool,
        /// Updates are acknowledged when they are in the page cache, which outlives every process.
        relaxed: bool,
    },
    Install {
        name: String,
        number: u64,
    },
    Write {
        name: String,
        number: u64,
    },
    /// An update that writes as [`Operation::Write`] does, and traps.
    Trap {
        name: String,
        number: u64,
    },
    Grow {
        name: String,
    },
    Print {
        name: String,
        line: String,
    },
    Read {
        name: String,
    },
    /// Ends the tenant's workers.
    Sleep {
        name: String,
    },
    /// So many times [`Operation::Write`], with the number and those that follow.
    Writes {
        name: String,
        number: u64,
        times: u64,
    },
    StateHash {
        name: String,
    },
    Compact {
        name: String,
    },
    Checkpoint {
        name: String,
    },
    Snapshot {
        name: String,
        tag: String,
    },
    Restore {
        name: String,
        tag: String,
    },
    Delete {
        name: String,
        tag: String,
    },
    Fork {
        name: String,
        new: String,
        from: Option<String>,
    },
    /// To the module of the other kind.
    Upgrade {
        name: String,
        kind: u64,
    },
    /// To a file beside the data directory.
    Export {
        name: String,
        file: String,
    },
    Import {
        name: String,
        file: String,
    },
    Remove {
        name: String,
    },
    /// Opens all tenants and reads them; with `snapshots`, what is in their snapshots too.
    Look {
        snapshots: bool,
    },
}

/// What `query read` of `cells.wat` answers.
pub type Cells = Vec<u64>;

/// A tenant, as a host shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub cells: Cells,
    /// `ic0.canister_version`.
    pub version: u64,
    /// What is in each snapshot, if it was looked at.
    pub snapshots: BTreeMap<String, Option<Cells>>,
}

/// What an operation that went well came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Cells(Cells),
    World(BTreeMap<String, Seen>),
}
