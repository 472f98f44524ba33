//! What a worker looks like from outside, through `/proc`: where effects on the
//! worker itself are looked for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt;

/// What is compared with what was before.
#[derive(Debug, Clone, Default)]
pub struct Look {
    pid: i32,
    descriptors: BTreeMap<i32, String>,
    namespaces: BTreeMap<&'static str, String>,
    mounts: String,
    root: String,
    program: String,
    limits: String,
}

const NAMESPACES: [&str; 6] = ["user", "pid", "mnt", "net", "ipc", "uts"];

fn text(pid: i32, file: &str) -> String {
    fs::read(format!("/proc/{pid}/{file}"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn link(pid: i32, file: &str) -> String {
    fs::read_link(format!("/proc/{pid}/{file}"))
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn status(pid: i32, field: &str) -> Option<String> {
    text(pid, "status")
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
}

impl Look {
    /// Looks at a process.
    pub fn at(pid: i32) -> Self {
        Self {
            pid,
            descriptors: descriptors(pid),
            namespaces: NAMESPACES
                .into_iter()
                .map(|name| (name, link(pid, &format!("ns/{name}"))))
                .collect(),
            mounts: text(pid, "mountinfo"),
            root: link(pid, "root"),
            program: link(pid, "exe"),
            limits: text(pid, "limits"),
        }
    }

    /// A descriptor that it didn't have, to what begins so; for writing, if that
    /// is wanted.
    pub fn new_descriptor(&self, begins: &str, writable: bool) -> Option<String> {
        descriptors(self.pid)
            .into_iter()
            .find(|(number, target)| {
                !self.descriptors.contains_key(number)
                    && target.starts_with(begins)
                    && (!writable || is_writable(self.pid, *number))
            })
            .map(|(number, target)| format!("descriptor {number} is {target}"))
    }

    /// How many descriptors it has.
    pub fn descriptors(&self) -> usize {
        descriptors(self.pid).len()
    }

    /// How many descriptors wait in its sockets (`scm_fds` in
    /// `/proc/PID/fdinfo`, Linux 5.13).
    pub fn in_flight(&self) -> u64 {
        descriptors(self.pid)
            .keys()
            .filter_map(|number| {
                text(self.pid, &format!("fdinfo/{number}"))
                    .lines()
                    .find_map(|line| line.strip_prefix("scm_fds:"))?
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .sum()
    }

    /// Its namespace of this kind, if that is another now.
    pub fn new_namespace(&self, name: &str) -> Option<String> {
        let now = link(self.pid, &format!("ns/{name}"));
        let before = self.namespaces.get(name)?;
        (!now.is_empty() && now != *before).then(|| format!("{before} became {now}"))
    }

    /// How many mounts it sees, if they are others now.
    pub fn new_mounts(&self) -> Option<String> {
        let now = text(self.pid, "mountinfo");
        (!now.is_empty() && now != self.mounts).then(|| {
            format!(
                "{} mounts became {}",
                self.mounts.lines().count(),
                now.lines().count()
            )
        })
    }

    /// Its root directory, if that is another now.
    pub fn new_root(&self) -> Option<String> {
        let now = link(self.pid, "root");
        (!now.is_empty() && now != self.root).then(|| format!("{} became {now}", self.root))
    }

    /// The program that it runs, if that is another now.
    pub fn new_program(&self) -> Option<String> {
        let now = link(self.pid, "exe");
        (!now.is_empty() && now != self.program).then(|| format!("it runs {now}"))
    }

    /// Whether it runs as the host's root.
    pub fn is_root(&self) -> bool {
        status(self.pid, "Uid").is_some_and(|uids| uids.split_whitespace().any(|uid| uid == "0"))
    }

    /// Whether these bytes are in its memory at this address, and may be executed.
    pub fn holds_code(&self, address: u64, code: &[u8]) -> Option<String> {
        let maps = text(self.pid, "maps");
        let line = maps.lines().find(|line| {
            let mut words = line.split_whitespace();
            let range = words.next().and_then(|range| range.split_once('-'));
            let executable = words.next().is_some_and(|flags| flags.contains('x'));
            let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
            executable
                && range.is_some_and(|(from, to)| (number(from)..number(to)).contains(&address))
        })?;
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid)).ok()?;
        let mut found = vec![0; code.len()];
        memory.read_exact_at(&mut found, address).ok()?;
        (found == code).then(|| {
            let words: Vec<&str> = line.split_whitespace().skip(1).collect();
            format!("its code is in executable memory: {}", words.join(" "))
        })
    }

    /// A mapping whose name begins so.
    pub fn mapping(&self, begins: &str) -> Option<String> {
        text(self.pid, "maps")
            .lines()
            .find(|line| {
                line.split_whitespace()
                    .nth(5)
                    .is_some_and(|name| name.starts_with(begins))
            })
            .map(str::to_owned)
    }

    /// Its personality (proc_pid_personality(5)).
    pub fn personality(&self) -> u32 {
        u32::from_str_radix(text(self.pid, "personality").trim(), 16).unwrap_or(0)
    }

    /// How many threads it has.
    pub fn threads(&self) -> u32 {
        status(self.pid, "Threads")
            .and_then(|count| count.parse().ok())
            .unwrap_or(0)
    }

    /// Bytes that it has resident.
    pub fn resident(&self) -> u64 {
        status(self.pid, "VmRSS")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .map_or(0, |kibibytes| kibibytes << 10)
    }

    /// How many processes it and its descendants are.
    pub fn processes(&self) -> usize {
        1 + text(self.pid, &format!("task/{}/children", self.pid))
            .split_whitespace()
            .count()
    }

    /// Its limit of descriptors, if that is another now.
    pub fn new_limit(&self) -> Option<String> {
        let line = |limits: &str| {
            limits
                .lines()
                .find(|line| line.starts_with("Max open files"))
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let now = line(&text(self.pid, "limits"))?;
        (Some(&now) != line(&self.limits).as_ref()).then_some(now)
    }
}

fn descriptors(pid: i32) -> BTreeMap<i32, String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            // Of its own descriptors one is this look's.
            if target.as_os_str() == OsStr::new(&format!("/proc/{pid}/fd")) {
                return None;
            }
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect()
}

/// Whether a descriptor is open for writing: the access mode in the octal flags of
/// proc_pid_fdinfo(5).
fn is_writable(pid: i32, number: i32) -> bool {
    text(pid, &format!("fdinfo/{number}"))
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_RDONLY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_of_a_process_is_seen() {
        let me = std::process::id() as i32;
        let before = Look::at(me);
        assert_eq!(before.new_root(), None);
        assert_eq!(before.new_program(), None);
        assert_eq!(before.new_namespace("user"), None);
        assert!(before.threads() > 0 && before.resident() > 0);
        let path = std::env::temp_dir();
        let open = fs::File::open(&path).unwrap();
        let begins = path.canonicalize().unwrap();
        let begins = begins.to_str().unwrap();
        assert!(before.new_descriptor(begins, false).is_some());
        assert_eq!(before.new_descriptor(begins, true), None);
        drop(open);
    }
}
