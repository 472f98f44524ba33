//! The file that says that a directory is a data directory, and of which version.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::DataDirError;

/// The version of the layout.
pub(super) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Description {
    format: String,
    version: u32,
}

const FORMAT: &str = "lazaret-data";

/// What a new directory's file holds.
pub(super) fn new() -> Vec<u8> {
    serde_json::to_vec_pretty(&Description {
        format: FORMAT.into(),
        version: VERSION,
    })
    .unwrap_or_default()
}

/// Looks at what is in the file of the directory `path`.
pub(super) fn check(file: &Path, path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let corrupt = |reason: String| DataDirError::Corrupt {
        path: file.to_owned(),
        reason,
    };
    let description: Description =
        serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
    if description.format != FORMAT {
        return Err(corrupt(format!(
            "format is `{}`, not `{FORMAT}`",
            description.format
        )));
    }
    match description.version {
        VERSION => Ok(()),
        0 => Err(corrupt("version 0 never was".into())),
        found => Err(DataDirError::Newer {
            path: path.to_owned(),
            found,
        }),
    }
}
