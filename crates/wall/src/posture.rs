//! What of a worker must stay as it was verified, for as long as it lives.
//!
//! It is taken down together with the receipt, from the same looks, and
//! compared later: by the host now and then, or by `lazaret audit --live`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::layers::descriptors::{self, Open};
use crate::layers::{namespaces, read, status_field};

/// What a worker looks like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posture {
    /// Its namespaces, by kind, as `/proc/PID/ns` names them.
    pub namespaces: BTreeMap<String, String>,
    /// Lines of `/proc/PID/status`: who it is, what it may, how it is filtered,
    /// how many threads it has.
    pub status: BTreeMap<String, String>,
    /// Its open descriptors: number and what it is.
    pub descriptors: Open,
    /// Its mappings that are executable or shared: lines of `/proc/PID/maps`.
    pub mappings: Vec<String>,
}

/// The lines of `/proc/PID/status` that are compared (proc_pid_status(5)).
const STATUS: [&str; 12] = [
    "Uid",
    "Gid",
    "Groups",
    "Threads",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
];

impl Posture {
    /// Looks at a process.
    ///
    /// # Errors
    /// If it has gone, or this process may not look at it.
    pub fn look(pid: i32) -> Result<Self, String> {
        let status = read(pid, "status")?;
        let maps = read(pid, "maps")?;
        Self::of(
            namespaces::all(pid)?,
            &String::from_utf8_lossy(&status),
            &maps,
            descriptors::open(pid)?,
        )
    }

    /// The same, of what was read already.
    pub(crate) fn of(
        namespaces: BTreeMap<String, String>,
        status: &str,
        maps: &[u8],
        descriptors: Open,
    ) -> Result<Self, String> {
        Ok(Self {
            namespaces,
            status: STATUS
                .iter()
                .map(|name| {
                    let words = status_field(status, name)?.split_whitespace();
                    Ok(((*name).to_owned(), words.collect::<Vec<_>>().join(" ")))
                })
                .collect::<Result<_, String>>()?,
            descriptors,
            mappings: maps
                .split(|byte| *byte == b'\n')
                .filter(|line| is_lasting(line))
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect(),
        })
    }

    /// What of `now` isn't as it was, in words; nothing if all is. Files that
    /// a program opened since below its directories are none, if it
    /// `may_open` some.
    pub fn differences(&self, now: &Self, may_open: bool) -> Vec<String> {
        let mut found = Vec::new();
        for (what, before, now) in [
            ("namespace", &self.namespaces, &now.namespaces),
            ("status", &self.status, &now.status),
        ] {
            for (name, was) in before {
                let is = now.get(name).map_or("nothing", String::as_str);
                if is != was {
                    found.push(format!("{what} {name} was {was} and is {is}"));
                }
            }
        }
        for (number, is) in &now.descriptors {
            match self.descriptors.get(number) {
                Some(was) if was == is => {}
                Some(was) => found.push(format!("descriptor {number} was {was} and is {is}")),
                None if may_open && is == "path" => {}
                None => found.push(format!("descriptor {number} is new: {is}")),
            }
        }
        for (number, was) in &self.descriptors {
            if !now.descriptors.contains_key(number) && !may_open {
                found.push(format!("descriptor {number} is gone: {was}"));
            }
        }
        let has = |lines: &[String], line: &str| {
            let mut lines = lines.iter();
            lines.any(|other| mapped(other) == mapped(line))
        };
        for line in &now.mappings {
            if !has(&self.mappings, line) {
                found.push(format!("a new mapping: {line}"));
            }
        }
        for line in &self.mappings {
            if !has(&now.mappings, line) {
                found.push(format!("a mapping is gone: {line}"));
            }
        }
        found
    }
}

/// What is mapped where, of a line of `/proc/PID/maps`: of a file its device and number,
/// and not its name, which changes when it is renamed or removed (proc_pid_maps(5)).
fn mapped(line: &str) -> &str {
    let mut rest = line;
    for field in 0..5 {
        let field_end = rest.find(' ').unwrap_or(rest.len());
        let (word, after) = rest.split_at(field_end);
        rest = after.trim_start();
        if field == 4 && word != "0" {
            let end = line.len() - after.len();
            return line.get(..end).unwrap_or(line);
        }
    }
    line
}

/// Whether a mapping can't come, go or change while a worker runs: code, and
/// memory that somebody else has too. Its own memory changes all the time.
fn is_lasting(line: &[u8]) -> bool {
    match line.split(|byte| *byte == b' ').nth(1) {
        Some([_, _, x, shared, ..]) => *x == b'x' || *shared == b's',
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_nothing_stays_as_it_is() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        // It may still be loading.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let before = Posture::look(pid).unwrap();
        assert!(before.mappings.iter().any(|line| line.contains("r-xp")));
        assert_eq!(before.status["Threads"], "1");
        let now = Posture::look(pid).unwrap();
        assert_eq!(before.differences(&now, false), Vec::<String>::new());
        let text = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<Posture>(&text).unwrap(), before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Posture::look(pid).is_err());
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let text = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let before = Posture {
            namespaces: text(&[("net", "net:[1]")]),
            status: text(&[("Seccomp", "2"), ("Threads", "1")]),
            descriptors: Open::from([(0, "pipe".into()), (3, "path".into())]),
            mappings: vec!["1-2 r-xp a".into(), "3-4 rw-s wire".into()],
        };
        let now = Posture {
            namespaces: text(&[("net", "net:[2]")]),
            status: text(&[("Seccomp", "0")]),
            descriptors: Open::from([
                (0, "socket".into()),
                (4, "path".into()),
                (5, "socket".into()),
            ]),
            mappings: vec!["1-2 r-xp a".into(), "5-6 r-xp b".into()],
        };
        assert_eq!(
            before.differences(&now, false),
            [
                "namespace net was net:[1] and is net:[2]",
                "status Seccomp was 2 and is 0",
                "status Threads was 1 and is nothing",
                "descriptor 0 was pipe and is socket",
                "descriptor 4 is new: path",
                "descriptor 5 is new: socket",
                "descriptor 3 is gone: path",
                "a new mapping: 5-6 r-xp b",
                "a mapping is gone: 3-4 rw-s wire",
            ]
        );
        // A program may open and close files, and nothing else.
        let with_files = before.differences(&now, true);
        assert_eq!(with_files.len(), 7, "{with_files:?}");
        assert!(before.differences(&before, false).is_empty());
    }

    #[test]
    fn a_file_that_is_removed_is_still_mapped() {
        let line = "7f8f65938000-7f8f65c86000 r-xp 00137000 fe:00 10133790    /cache/a b";
        assert_eq!(
            mapped(line),
            "7f8f65938000-7f8f65c86000 r-xp 00137000 fe:00 10133790"
        );
        let removed = format!("{line} (deleted)");
        assert_eq!(mapped(&removed), mapped(line));
        assert_ne!(mapped(&line.replace("10133790", "10133791")), mapped(line));
        assert_ne!(mapped(&line.replace("fe:00", "fe:01")), mapped(line));
        // What isn't of a file has no number.
        let special = "7fffd1ffe000-7fffd2000000 r-xp 00000000 00:00 0    [vdso]";
        assert_eq!(mapped(special), special);
        for line in ["", "a", "1-2 r-xp a", "1-2 rw-s 0 0:0", "1-2 rw-s 0 0:0 7"] {
            assert_eq!(mapped(line), line);
        }
    }
}
