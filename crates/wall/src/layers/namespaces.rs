//! Namespaces: the launcher makes them with `clone3`; here they are verified.

use std::collections::BTreeMap;
use std::path::Path;

use super::proc;
use crate::layer::{Layer, LayerError};

/// The layers that are namespaces, with their names in `/proc/PID/ns`.
pub const NAMESPACES: &[(Layer, &str)] = &[
    (Layer::UserNamespace, "user"),
    (Layer::PidNamespace, "pid"),
    (Layer::MountNamespace, "mnt"),
    (Layer::NetworkNamespace, "net"),
    (Layer::IpcNamespace, "ipc"),
    (Layer::UtsNamespace, "uts"),
];

/// In a worker: its own UTS namespace still has the host's name.
pub fn forget_the_host_s_name() -> Result<(), LayerError> {
    let name = c"worker";
    // SAFETY: a string and its length.
    match unsafe { libc::sethostname(name.as_ptr(), name.to_bytes().len()) } {
        0 => Ok(()),
        _ => Err(LayerError::last(Layer::UtsNamespace, "sethostname")),
    }
}

fn identity(path: &Path) -> Result<String, String> {
    std::fs::read_link(path)
        .map(|link| link.to_string_lossy().into_owned())
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// The namespaces of this process, by their names in `/proc/PID/ns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own(Vec<(&'static str, String)>);

impl Own {
    /// Looks at them. A host does that while its worker starts.
    pub fn look() -> Result<Self, String> {
        NAMESPACES
            .iter()
            .map(|&(_, name)| {
                let found = identity(Path::new("/proc/self/ns").join(name).as_path())?;
                Ok((name, found))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn of(&self, name: &str) -> Result<&str, String> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, found)| found.as_str())
            .ok_or_else(|| format!("{name} is no namespace that is looked at"))
    }
}

/// A namespace of a process. Its own `pid` namespace is what `ns/pid` shows once
/// it runs in it; for the launcher's children `ns/pid` is their own.
pub fn of(pid: i32, name: &str) -> Result<String, String> {
    identity(&proc(pid, &format!("ns/{name}")))
}

/// All of a process that are looked at, by their names.
pub fn all(pid: i32) -> Result<BTreeMap<String, String>, String> {
    NAMESPACES
        .iter()
        .map(|(_, name)| *name)
        .chain(["cgroup"])
        .map(|name| Ok((name.to_owned(), of(pid, name)?)))
        .collect()
}

/// From outside: `theirs` is not the host's namespace of that kind.
pub fn verify(theirs: Option<&String>, name: &str, own: &Own) -> Result<String, String> {
    match theirs {
        None => Err(format!("{name} is no namespace that is looked at")),
        Some(theirs) if theirs == own.of(name)? => Err(format!("shares the host's {theirs}")),
        Some(theirs) => Ok(theirs.clone()),
    }
}

/// From outside: the uid on the host is what the launcher gave it, and not 0.
pub fn verify_user(status: &str, expected: u32) -> Result<String, String> {
    let uids = super::status_field(status, "Uid")?;
    let numbers: Vec<u32> = uids
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers.as_slice() {
        [0, ..] | [_, 0, ..] => Err("runs as host uid 0".into()),
        [real, effective, saved, filesystem]
            if [real, effective, saved, filesystem]
                .iter()
                .all(|uid| **uid == expected) =>
        {
            Ok(format!("uid {expected} on the host"))
        }
        _ => Err(format!("uids on the host are {uids}, expected {expected}")),
    }
}
