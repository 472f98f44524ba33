//! A tenant's log: lines it printed, kept whatever became of the call.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::TenantError;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Nanoseconds since 1970-01-01.
    pub time: u64,
    /// The version of the tenant before the call that printed it.
    pub version: u64,
    /// What it printed; bytes that are no UTF-8 are replaced.
    pub text: String,
}

const FILE: &str = "log.jsonl";
const OLD: &str = "log.1.jsonl";

/// Whether a file of a tenant's is its log.
pub(crate) fn is_log(name: &str) -> bool {
    matches!(name, FILE | OLD)
}

/// A log of this size becomes the old one, and the old one goes.
const MAX_BYTES: u64 = 4 << 20;

/// The most lines kept of one call: a record costs its writer a few bytes, and
/// the host a line of JSON.
const MAX_LINES: usize = 1_000;

/// Appends lines. They are not synced: a log is no state.
pub(super) fn append(
    directory: &Path,
    version: u64,
    mut lines: Vec<Vec<u8>>,
    lost: u32,
) -> io::Result<()> {
    let path = directory.join(FILE);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_BYTES) {
        fs::rename(&path, directory.join(OLD))?;
    }
    let over = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    let lost = u64::from(lost) + over as u64;
    let time = super::now();
    let mut text = Vec::new();
    let lost =
        (lost > 0).then(|| format!("[{lost} lines did not fit and were dropped]").into_bytes());
    for line in lines.into_iter().chain(lost) {
        serde_json::to_writer(
            &mut text,
            &LogLine {
                time,
                version,
                text: String::from_utf8_lossy(&line).into_owned(),
            },
        )?;
        text.push(b'\n');
    }
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)?;
    // What a killed host left of a line must not take the next one along.
    let mut last = *b"\n";
    if let Some(at) = file.metadata()?.len().checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    if last != *b"\n" {
        text.insert(0, b'\n');
    }
    file.write_all(&text)
}

/// Reads all lines that are kept. A torn last line (the host was killed) is
/// left out.
pub(super) fn read(directory: &Path) -> Result<Vec<LogLine>, TenantError> {
    let mut lines = Vec::new();
    for name in [OLD, FILE] {
        let path = directory.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(TenantError::file(path)(error)),
        };
        for line in BufReader::new(file).lines() {
            let line = line.map_err(TenantError::file(&path))?;
            if let Ok(line) = serde_json::from_str(&line) {
                lines.push(line);
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_cut_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        append(directory.path(), 0, vec![Vec::new(); MAX_LINES + 7], 1).unwrap();
        let lines = read(directory.path()).unwrap();
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(
            lines[MAX_LINES].text,
            "[8 lines did not fit and were dropped]"
        );
    }

    #[test]
    fn lines_come_back_and_a_torn_one_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        append(
            directory.path(),
            3,
            vec![b"hello".to_vec(), b"\xff\x1b[2J".to_vec()],
            2,
        )
        .unwrap();
        let mut file = OpenOptions::new()
            .append(true)
            .open(directory.path().join(FILE))
            .unwrap();
        file.write_all(b"{\"time\":1,\"ver").unwrap();
        let lines = read(directory.path()).unwrap();
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "hello",
                "\u{fffd}\u{1b}[2J",
                "[2 lines did not fit and were dropped]"
            ]
        );
        assert_eq!(lines[0].version, 3);
        append(directory.path(), 4, vec![b"again".to_vec()], 0).unwrap();
        let lines = read(directory.path()).unwrap();
        assert_eq!((lines.len(), lines[3].text.as_str()), (4, "again"));
    }
}
