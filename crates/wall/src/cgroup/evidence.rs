//! What is seen of a worker's group from outside.

use std::path::Path;

use serde::Serialize;

use super::CgroupError;
use super::controller::Controller;
use super::group::Group;
use super::hierarchy::{Version, own_path};
use super::limits::CgroupOptions;
use super::parent::{Branch, joined};
use super::surroundings::read;

/// A limit that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Put {
    /// Who keeps it.
    pub controller: Controller,
    /// The file of the group that says so.
    pub file: &'static str,
    /// What it says.
    pub value: String,
}

/// What was read back of a worker's group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Evidence {
    /// The worker's groups, as `/proc/PID/cgroup` says them.
    pub groups: Vec<String>,
    /// Their limits, as their files say them.
    pub limits: Vec<Put>,
}

/// Compares what `/proc` and the group's files say with what should be.
pub(super) fn verify<'a>(
    proc: &Path,
    branches: impl Iterator<Item = &'a Branch>,
    group: &Group,
    options: &CgroupOptions,
    pid: i32,
) -> Result<Evidence, CgroupError> {
    let text = read(&proc.join(pid.to_string()).join("cgroup"))?;
    let unverified = |found: String| CgroupError::Unverified { pid, found };
    let mut evidence = Evidence::default();
    for branch in branches {
        let expected = joined(&branch.path, &group.name);
        let found = own_path(&text, branch.version, &branch.controllers);
        let names: Vec<&str> = branch
            .controllers
            .iter()
            .map(|controller| controller.kernel_name(branch.version))
            .collect();
        if found.as_deref() != Some(expected.as_str()) {
            let found = found.unwrap_or_else(|| "no group".into());
            return Err(unverified(format!(
                "for {} it is in {found}, not in {expected}",
                names.join(",")
            )));
        }
        evidence.groups.push(match branch.version {
            Version::V1 => format!("{}:{expected}", names.join(",")),
            Version::V2 => expected,
        });
    }
    for (part, setting) in group.settings(options) {
        let path = part.directory.join(setting.file);
        let value = match read(&path) {
            Ok(value) => value,
            // Left at what a new group has, and this kernel has no such file.
            Err(_) if !setting.essential => continue,
            Err(error) => return Err(error),
        };
        // The weight of the disks has a line for each of them after its own.
        let line = value.lines().next().unwrap_or_default();
        if line != setting.value {
            return Err(unverified(format!(
                "{} says `{line}`, not `{}`",
                path.display(),
                setting.value
            )));
        }
        evidence.limits.push(Put {
            controller: setting.controller,
            file: setting.file,
            value: line.to_owned(),
        });
    }
    Ok(evidence)
}
