//! Measured points as CSV: the machine as a comment, a line with the columns' names, and
//! one for each point.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::error::BenchError;
use crate::machine::Machine;

/// Writes a file.
pub(crate) fn write(
    path: &Path,
    machine: &Machine,
    head: &str,
    lines: impl Iterator<Item = String>,
) -> Result<(), BenchError> {
    let mut text = String::new();
    for line in machine.to_string().lines() {
        // Writing to a string can't fail.
        let _ = writeln!(text, "# {line}");
    }
    let _ = writeln!(text, "{head}");
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    fs::write(path, text).map_err(BenchError::system("writing the curves' data"))
}
