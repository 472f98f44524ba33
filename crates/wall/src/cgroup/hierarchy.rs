//! Which hierarchies of control groups there are, and where in each of them
//! this process is: from `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and
//! `/proc/self/cgroup` (cgroups(7)), nothing guessed.

use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::controller::Controller;

/// The version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// Controllers in hierarchies of their own.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A hierarchy that is mounted here, and this process's group in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its version.
    pub version: Version,
    /// With version 1, its controllers of those that are used here. With
    /// version 2 they depend on the group (`cgroup.controllers`).
    pub controllers: Vec<Controller>,
    /// The directory of this process's group.
    pub own: PathBuf,
    /// The same as `/proc/self/cgroup` says it.
    pub path: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// The hierarchies that are mounted where this process's group can be seen, from
/// the text of `/proc/self/mountinfo` and `/proc/self/cgroup`. Lines that make no
/// sense are passed over, and of a hierarchy that is mounted twice the first
/// mount that can be written is taken.
pub fn hierarchies(mountinfo: &str, cgroup: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some(hierarchy) = mounted(line, cgroup) else {
            continue;
        };
        if hierarchy.version == Version::V1 && hierarchy.controllers.is_empty() {
            continue;
        }
        let known = found.iter_mut().find(|known| {
            known.version == hierarchy.version && known.controllers == hierarchy.controllers
        });
        match known {
            Some(known) if known.read_only && !hierarchy.read_only => *known = hierarchy,
            Some(_) => {}
            None => found.push(hierarchy),
        }
    }
    found
}

/// A line of mountinfo, if it is a hierarchy in which this process is.
fn mounted(line: &str, cgroup: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    let fields: Vec<&str> = mount.split(' ').collect();
    let (root, point, options) = (*fields.get(3)?, *fields.get(4)?, *fields.get(5)?);
    let mut file_system = file_system.split(' ');
    let kind = file_system.next()?;
    let superblock = file_system.nth(1).unwrap_or("");
    let names = |text: &'static str| superblock.split(',').any(|option| option == text);
    let (version, controllers) = match kind {
        "cgroup2" => (Version::V2, Vec::new()),
        "cgroup" => (
            Version::V1,
            Controller::ALL
                .into_iter()
                .filter(|controller| names(controller.kernel_name(Version::V1)))
                .collect::<Vec<_>>(),
        ),
        _ => return None,
    };
    let path = own_path(cgroup, version, &controllers)?;
    let own = below(&unescaped(root), Path::new(&path))?;
    let point = unescaped(point);
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Hierarchy {
        version,
        controllers,
        own: match own.as_os_str().is_empty() {
            true => point,
            false => point.join(own),
        },
        path,
        read_only: read_only(options) || read_only(superblock),
    })
}

/// Where this process is in a hierarchy.
pub(super) fn own_path(
    cgroup: &str,
    version: Version,
    controllers: &[Controller],
) -> Option<String> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let here = match version {
            Version::V2 => number == "0" && names.is_empty(),
            Version::V1 => {
                let first = controllers.first()?.kernel_name(Version::V1);
                names.split(',').any(|name| name == first)
            }
        };
        here.then(|| path.to_owned())
    })
}

/// `path` relative to the root of a mount. Nothing if it isn't below it: then
/// the mount doesn't show this process's group (cgroup_namespaces(7) shows what
/// lies outside by `..`).
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let outside = |path: &Path| path.components().any(|part| part == Component::ParentDir);
    if outside(root) || outside(path) {
        return None;
    }
    Some(path.strip_prefix(root).ok()?.to_owned())
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let octal = |digit: &u8| {
            (b'0'..=b'7')
                .contains(digit)
                .then(|| u32::from(digit - b'0'))
        };
        let escaped = match (first, after) {
            (b'\\', [a, b, c, ..]) => octal(a)
                .zip(octal(b))
                .zip(octal(c))
                .and_then(|((a, b), c)| u8::try_from(a * 64 + b * 8 + c).ok()),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unified_as_systemd_mounts_it() {
        let found = hierarchies(
            "25 30 0:23 / /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n\
             26 30 0:24 / /dev/shm rw - tmpfs tmpfs rw\n",
            "0::/system.slice/lazaret.service\n",
        );
        assert_eq!(
            found,
            [Hierarchy {
                version: Version::V2,
                controllers: vec![],
                own: "/sys/fs/cgroup/system.slice/lazaret.service".into(),
                path: "/system.slice/lazaret.service".into(),
                read_only: false,
            }]
        );
    }

    #[test]
    fn version_1_with_controllers_mounted_together_and_a_unified_one_beside() {
        let found = hierarchies(
            "31 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
             38 31 0:35 / /sys/fs/cgroup/blkio ro - cgroup cgroup rw,blkio\n\
             40 31 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "4:memory:/a/b\n2:cpu,cpuacct:/\n1:blkio:/x\n0::/\n5:devices:/\n",
        );
        let short: Vec<_> = found
            .iter()
            .map(|one| (one.version, one.own.to_str().unwrap(), one.read_only))
            .collect();
        assert_eq!(
            short,
            [
                (Version::V1, "/sys/fs/cgroup/cpu,cpuacct", false),
                (Version::V1, "/sys/fs/cgroup/memory/a/b", false),
                (Version::V1, "/sys/fs/cgroup/blkio/x", true),
                (Version::V2, "/sys/fs/cgroup/unified", false),
            ]
        );
        assert_eq!(found[2].controllers, [Controller::Io]);
    }

    #[test]
    fn a_container_sees_its_part_only() {
        // Bind mount of a part, without a cgroup namespace.
        let part = "35 31 0:32 /docker/1f /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let own = |cgroup: &str| {
            let found = hierarchies(part, cgroup);
            found.into_iter().next().map(|one| one.own)
        };
        assert_eq!(own("0::/docker/1f\n"), Some("/sys/fs/cgroup".into()));
        assert_eq!(own("0::/docker/1f/x\n"), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(own("0::/docker/1f2\n"), None, "not below the mount");
        // A mount from outside the cgroup namespace, and a process moved out.
        let outer = "35 31 0:32 /../.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(hierarchies(outer, "0::/\n"), []);
        assert_eq!(hierarchies(part, "0::/../other\n"), []);
    }

    #[test]
    fn of_two_mounts_the_one_that_can_be_written() {
        let found = hierarchies(
            "35 31 0:32 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
             36 31 0:32 / /my\\040groups rw - cgroup2 cgroup rw\n",
            "0::/a\n",
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].own, Path::new("/my groups/a"));
    }

    #[test]
    fn nonsense_is_passed_over() {
        for text in [
            "",
            "x",
            " - cgroup2",
            "1 2 3 - cgroup2 a b",
            "\\",
            "a - - - -",
        ] {
            assert_eq!(hierarchies(text, "0::/\n"), []);
        }
        assert_eq!(unescaped("a\\04").as_os_str(), "a\\04");
        assert_eq!(unescaped("\\777").as_os_str(), "\\777");
        let mount = "35 31 0:32 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        for cgroup in ["", "0", "0:", "1::/x", "0:memory:/"] {
            assert_eq!(hierarchies(mount, cgroup), []);
        }
    }
}
