//! Why a tenant can't be loaded.

use lazaret_wire::message::{Failed, Tracking};
use thiserror::Error;

use crate::memory::{Lack, MemoryError};
use crate::trap::cut;

/// Why a tenant can't be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The module imports functions that nobody provides.
    #[error("the module imports what Lazaret does not provide: {names}")]
    Imports {
        /// Their names, with their modules.
        names: String,
    },
    /// An import has another type.
    #[error("the module imports {name} as {found}, but it is {expected}")]
    ImportType {
        /// The import.
        name: String,
        /// The module's type.
        found: String,
        /// The right type.
        expected: String,
    },
    /// An entry point has parameters or results.
    #[error(
        "the export \"{name}\" is an entry point and must be a function without parameters and results"
    )]
    EntryPoint {
        /// Its name.
        name: String,
    },
    /// An artefact that was not compiled for a tenant.
    #[error("the artefact has no {export}: it was not compiled for a tenant")]
    NotTenant {
        /// What is missing.
        export: String,
    },
    /// An artefact that was compiled for another way of tracking.
    #[error(
        "the artefact was compiled {with} cards, which is not how its writes are to be tracked: {tracking:?}"
    )]
    Tracking {
        /// "with" or "without".
        with: &'static str,
        /// What was asked for.
        tracking: Tracking,
    },
    /// The module's smallest memory is over the limit.
    #[error(
        "the module's memory begins with {minimum} bytes, more than the tenant's limit of {limit}; raise the limit"
    )]
    MinimumOverLimit {
        /// Its minimum.
        minimum: u64,
        /// The limit.
        limit: u64,
    },
    /// The memory can't be set up.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The host has no memory for the module's smallest heap.
    #[error(transparent)]
    Lack(#[from] Lack),
    /// The engine refuses.
    #[error("the engine can't load the module: {0:#}")]
    Engine(wasmtime::Error),
    /// The module can't be instantiated.
    #[error("the module can't be instantiated: {0}")]
    Instance(String),
}

impl From<LoadError> for Failed {
    fn from(error: LoadError) -> Self {
        Self {
            layer: None,
            message: cut(error.to_string().replace('\n', " ")),
        }
    }
}
