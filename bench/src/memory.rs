//! Memory of an idle worker.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use lazaret::Host;

use crate::Options;
use crate::error::BenchError;
use crate::sample::Quantiles;
use crate::table::{Row, Target};

const EMPTY: &str = include_str!("../../tests/fixtures/wat/empty.wat");

/// Kibibytes, as `/proc/PID/smaps` counts (kernel: `fs/proc/task_mmu.c`,
/// `__show_smap`; `Documentation/filesystems/proc.rst`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kibibytes {
    pss: u64,
    private: u64,
}

pub(crate) fn row(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants("memory") {
        return Ok(());
    }
    progress("memory of an idle worker");
    let directory = options.temporary()?;
    let host = options
        .host()
        .data_dir(directory.path())
        .relaxed_durability()
        .build()?;
    let Idle {
        private,
        pss,
        kinds,
        tables,
    } = idle(&host)?;
    rows.push(
        Row::new("memory", "memory of an idle worker, private", "MiB")
            .ours(WORKERS.len(), Some(private))
            .target(Target::Value(0.5))
            .note(format!(
                "proportional share (PSS), of {} workers beside host and launcher: {:.2} MiB",
                WORKERS.len(),
                pss.p50
            ))
            .note(format!("private, in KiB: {}", breakdown(kinds)))
            .note(format!(
                "page tables, which the kernel counts apart: {tables} KiB"
            )),
    );
    Ok(())
}

/// The tenants whose workers are looked at. A page that a single process maps
/// counts as its own, be it of a file: so there are several, as there are on any
/// host.
pub(crate) const WORKERS: [&str; 4] = ["one", "two", "three", "four"];

/// Memory of idle workers, in mebibytes.
pub(crate) struct Idle {
    pub(crate) private: Quantiles,
    pss: Quantiles,
    /// Of the last one, in kibibytes, by what is mapped.
    kinds: BTreeMap<String, u64>,
    /// Its page tables, in kibibytes.
    tables: u64,
}

/// Looks at idle workers of tenants of this host.
pub(crate) fn idle(host: &Host) -> Result<Idle, BenchError> {
    let mut tenants = Vec::new();
    for name in WORKERS {
        let tenant = host.install(name, EMPTY, &[])?;
        for _ in 0..100 {
            tenant.query("empty", &[])?;
        }
        tenants.push(tenant);
    }
    let (mut totals, mut kinds) = (Vec::new(), BTreeMap::new());
    let mut tables = 0;
    for tenant in &tenants {
        let pid = tenant.info().worker.ok_or_else(|| {
            BenchError::system("looking at an idle worker")(std::io::ErrorKind::NotFound.into())
        })?;
        totals.push(rollup(&read(pid, "smaps_rollup")?));
        kinds = by_kind(&read(pid, "smaps")?);
        tables = field(&read(pid, "status")?, "VmPTE").unwrap_or(0);
    }
    let quantiles = |of: fn(&Kibibytes) -> u64| {
        let mut values: Vec<u64> = totals.iter().map(of).collect();
        values.sort_unstable();
        let mebibytes =
            |kibibytes: Option<&u64>| kibibytes.map_or(0.0, |kibibytes| *kibibytes as f64 / 1024.0);
        Quantiles {
            p50: mebibytes(values.get(values.len() / 2)),
            p99: mebibytes(values.last()),
        }
    };
    Ok(Idle {
        private: quantiles(|total| total.private),
        pss: quantiles(|total| total.pss),
        kinds,
        tables,
    })
}

fn read(pid: i32, name: &str) -> Result<String, BenchError> {
    fs::read_to_string(format!("/proc/{pid}/{name}"))
        .map_err(BenchError::system("reading the memory map of a worker"))
}

/// The value of a line `Name: 12 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn rollup(text: &str) -> Kibibytes {
    let value = |name| field(text, name).unwrap_or(0);
    Kibibytes {
        pss: value("Pss"),
        private: value("Private_Clean") + value("Private_Dirty"),
    }
}

/// Private kibibytes by what is mapped.
fn by_kind(smaps: &str) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    let mut kind = String::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        match first.strip_suffix(':') {
            None => kind = kind_of(words),
            Some("Private_Clean" | "Private_Dirty") => {
                let kibibytes: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                *kinds.entry(kind.clone()).or_insert(0) += kibibytes;
            }
            Some(_) => {}
        }
    }
    kinds
}

/// What a mapping is, from the words after its addresses: protection, offset,
/// device, inode, name.
fn kind_of<'a>(mut words: impl Iterator<Item = &'a str>) -> String {
    let protection = words.next().unwrap_or_default();
    let name = words.skip(3).collect::<Vec<_>>().join(" ");
    let access = match protection.as_bytes() {
        [_, b'w', ..] => "data",
        [_, _, b'x', _] => "code",
        _ => "constants and relocations",
    };
    match name.as_str() {
        "" => "anonymous".to_owned(),
        name if name.starts_with('[') => name.trim_matches(['[', ']']).to_owned(),
        name if name.starts_with("/memfd:lazaret-wire") => "wire".to_owned(),
        name if name.starts_with("/memfd:lazaret-code") => format!("compiled module, {access}"),
        name => {
            let file = name
                .trim_end_matches(" (deleted)")
                .rsplit('/')
                .next()
                .unwrap_or_default();
            let kind = if file.contains(".so") {
                "libraries"
            } else if file.ends_with(".log") || file.ends_with(".base") {
                "image"
            } else {
                "executable"
            };
            format!("{kind}, {access}")
        }
    }
}

fn breakdown(kinds: BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = kinds
        .into_iter()
        .filter(|(_, kibibytes)| *kibibytes > 0)
        .collect();
    sorted.sort_by_key(|(_, kibibytes)| std::cmp::Reverse(*kibibytes));
    let mut text = String::new();
    for (kind, kibibytes) in sorted {
        let _ = write!(
            text,
            "{}{kind} {kibibytes}",
            if text.is_empty() { "" } else { "; " }
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c0000000-55d0c1000000 r--p 00000000 fe:00 123  /usr/bin/lazaret
Pss:  10 kB
Private_Clean:  8 kB
Private_Dirty:  4 kB
VmFlags: rd mr
55d0c1000000-55d0c2000000 rw-p 01000000 fe:00 123  /usr/bin/lazaret
Private_Clean:  0 kB
Private_Dirty:  20 kB
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
Private_Dirty:  3 kB
7f1000000000-7f1000001000 r-xp 00000000 fe:00 9 /lib/libc.so.6
Private_Clean:  1 kB
7ffc00000000-7ffc00001000 rw-p 00000000 00:00 0  [stack]
Private_Dirty:  7 kB
";

    #[test]
    fn a_map_is_summed_by_kind() {
        let kinds = by_kind(SMAPS);
        let found: Vec<(&str, u64)> = kinds
            .iter()
            .map(|(kind, size)| (kind.as_str(), *size))
            .collect();
        let expected = [
            ("anonymous", 3),
            ("executable, constants and relocations", 12),
            ("executable, data", 20),
            ("libraries, code", 1),
            ("stack", 7),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            breakdown(kinds),
            "executable, data 20; executable, constants and relocations 12; stack 7; anonymous 3; libraries, code 1"
        );
        assert_eq!(
            rollup(
                "Rss: 5 kB\nPss:   9 kB\nPss_Dirty: 1 kB\nPrivate_Clean: 2 kB\nPrivate_Dirty: 3 kB\n"
            ),
            Kibibytes { pss: 9, private: 5 }
        );
    }
}
