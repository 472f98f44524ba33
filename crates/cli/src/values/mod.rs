//! Values on the command line: text in, types out.

pub(crate) mod cores;
pub(crate) mod directory;
pub(crate) mod duration;
pub(crate) mod environment;
pub(crate) mod quarantine_after;
pub(crate) mod size;
