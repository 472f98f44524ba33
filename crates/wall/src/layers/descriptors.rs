//! Only the listed descriptors are open.

use std::collections::BTreeMap;
use std::fmt;

use super::proc;
use crate::policy::Kind;

/// A descriptor that a worker has once it is locked, or several alike. Its
/// text is what `lazaret audit` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its number; the first one of several.
    pub number: i32,
    /// Whether there are as many as directories were granted.
    pub each_directory: bool,
    /// What it is for.
    pub what: &'static str,
    /// What it can be, as `/proc/PID/fd` shows it: `pipe`, `socket`, `memfd`,
    /// or `path` for a file or directory.
    pub links: &'static [&'static str],
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, what, .. } = self;
        let from = if self.each_directory { "from " } else { "" };
        write!(f, "{from}{number}: {what} ({})", self.links.join(" or "))
    }
}

impl Listed {
    const fn one(number: i32, what: &'static str, links: &'static [&'static str]) -> Self {
        Self {
            number,
            each_directory: false,
            what,
            links,
        }
    }

    /// Whether an open descriptor is this one, or one of these.
    pub fn is(&self, number: i32, link: &str) -> bool {
        let numbered = match self.each_directory {
            true => number >= self.number,
            false => number == self.number,
        };
        numbered && self.links.contains(&link)
    }
}

const INPUT: Listed = Listed::one(0, "standard input", &["pipe", "socket", "path", "memfd"]);
const OUTPUT: Listed = Listed::one(1, "standard output", &["pipe"]);
const ERROR: Listed = Listed::one(2, "standard error", &["pipe"]);
const DIRECTORIES: Listed = Listed {
    number: 3,
    each_directory: true,
    what: "one for each granted directory",
    links: &["path"],
};

/// Everything that a worker of this kind has open once it is locked. For the
/// launch it is empty: what is open then is closed or handed over by the lock.
pub fn listed(kind: Kind) -> &'static [Listed] {
    match kind {
        Kind::Launch | Kind::Tenant => &[],
        Kind::Compiler => {
            const {
                &[
                    Listed::one(0, "the module, read-only", &["memfd"]),
                    Listed::one(1, "the artefact", &["memfd"]),
                ]
            }
        }
        Kind::Program(grants) if grants.directories => {
            const { &[INPUT, OUTPUT, ERROR, DIRECTORIES] }
        }
        Kind::Program(_) => const { &[INPUT, OUTPUT, ERROR] },
    }
}

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
        None if target.starts_with("/memfd:") => "memfd".to_owned(),
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
pub fn verify(found: &Open, expected: Expected<'_>) -> Result<String, String> {
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
