//! Only the listed descriptors are open.

use std::collections::BTreeMap;

use super::proc;

/// What descriptors a worker has, in words: number and what it is.
pub type Open = BTreeMap<i32, String>;

/// What `/proc/PID/fd` shows.
pub fn open(pid: i32) -> Result<Open, String> {
    let directory = proc(pid, "fd");
    let fail = |error: std::io::Error| format!("/proc/{pid}/fd: {error}");
    let mut found = Open::new();
    for entry in std::fs::read_dir(&directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let target = std::fs::read_link(entry.path()).map_err(fail)?;
        found.insert(number, kind(&target.to_string_lossy()));
    }
    Ok(found)
}

/// What a link in `/proc/PID/fd` leads to, without what differs each time.
fn kind(target: &str) -> String {
    match target.split_once(":[") {
        Some((kind, _)) => kind.to_owned(),
        None if target.starts_with("anon_inode:") => target.to_owned(),
        None if target.starts_with('/') => "path".to_owned(),
        None => target.to_owned(),
    }
}

/// What should be open in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected<'a> {
    /// Descriptors with fixed numbers.
    pub fixed: &'a [i32],
    /// How many granted directories are open.
    pub directories: usize,
}

/// From outside: what is expected, and nothing else.
pub fn verify(pid: i32, expected: Expected<'_>) -> Result<String, String> {
    let found = open(pid)?;
    let others: Vec<&str> = found
        .iter()
        .filter(|(number, _)| !expected.fixed.contains(number))
        .map(|(_, kind)| kind.as_str())
        .collect();
    if expected
        .fixed
        .iter()
        .all(|number| found.contains_key(number))
        && others == vec!["path"; expected.directories]
    {
        Ok(found
            .iter()
            .map(|(number, kind)| format!("{number}: {kind}"))
            .collect::<Vec<_>>()
            .join(", "))
    } else {
        Err(format!(
            "open descriptors are {found:?}, expected {expected:?}"
        ))
    }
}
