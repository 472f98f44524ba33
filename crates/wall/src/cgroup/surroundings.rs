//! What control groups are looked up from and made by: the kernel's files, or in
//! tests a directory that looks like them.

use std::io;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// Where to look, and how groups are made.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// Text of `/proc/self/mountinfo`.
    pub mountinfo: String,
    /// Text of `/proc/self/cgroup`.
    pub cgroup: String,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys/block`.
    pub disks: PathBuf,
    /// Makes a group: mkdir(2).
    pub make: fn(&Path) -> io::Result<()>,
    /// Removes one: rmdir(2), which fails as long as a task is in it.
    pub remove: fn(&Path) -> io::Result<()>,
}

impl Surroundings {
    /// The kernel's.
    pub(super) fn here() -> Result<Self, CgroupError> {
        let read = |name: &str| {
            let path = Path::new("/proc/self").join(name);
            std::fs::read_to_string(&path).map_err(CgroupError::file(&path, "read"))
        };
        Ok(Self {
            mountinfo: read("mountinfo")?,
            cgroup: read("cgroup")?,
            proc: "/proc".into(),
            disks: "/sys/block".into(),
            make: |path| std::fs::create_dir(path),
            remove: |path| std::fs::remove_dir(path),
        })
    }
}

impl Surroundings {
    /// Whether a disk has a scheduler that knows shares of version 1: bfq, the one
    /// in brackets (kernel: Documentation/block/switching-sched.rst).
    pub(super) fn disks_have_shares(&self) -> bool {
        let disks = std::fs::read_dir(&self.disks)
            .into_iter()
            .flatten()
            .flatten();
        disks
            .map(|disk| disk.path().join("queue/scheduler"))
            .any(|path| read(&path).is_ok_and(|text| text.contains("[bfq]")))
    }
}

/// Writes a value into a file of a group. The kernel takes it in one write.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    use std::io::Write;
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(CgroupError::file(path, format!("write `{value}`")))
}

/// Reads a file of a group, without the last newline.
pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    let mut text = std::fs::read_to_string(path).map_err(CgroupError::file(path, "read"))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}
