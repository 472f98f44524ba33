//! One tenant at one version, in one file: written and read as a stream. The bytes are specified in `docs/archive.md`.

mod format;
mod import;
mod reader;
mod writer;

pub use format::ArchiveHeader;
pub use reader::{ArchiveLimits, ArchiveReader};
pub use writer::{Exported, export};
