//! The lines of `/proc/PID/maps` (proc_pid_maps(5)).

use std::ops::Range;
use std::os::fd::AsFd;

/// Which file it is: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    major: u32,
    minor: u32,
    inode: u64,
}

impl Identity {
    /// Of an open file.
    pub(super) fn of(file: impl AsFd) -> Option<Self> {
        let stat = rustix::fs::fstat(file).ok()?;
        Some(Self {
            major: rustix::fs::major(stat.st_dev),
            minor: rustix::fs::minor(stat.st_dev),
            inode: stat.st_ino,
        })
    }
}

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub range: Range<u64>,
    pub executable: bool,
    /// Where in its file it begins.
    pub offset: u64,
    pub identity: Identity,
    /// A path, or what the kernel calls it; nothing if it is anonymous.
    pub name: String,
}

impl Mapping {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let (rights, rest) = rest.split_once(' ')?;
        let (offset, rest) = rest.split_once(' ')?;
        let (device, rest) = rest.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (inode, name) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Self {
            range: hex(from)?..hex(to)?,
            executable: rights.as_bytes().get(2) == Some(&b'x'),
            offset: hex(offset)?,
            identity: Identity {
                major: u32::from_str_radix(major, 16).ok()?,
                minor: u32::from_str_radix(minor, 16).ok()?,
                inode: inode.parse().ok()?,
            },
            name: name.trim_start().to_owned(),
        })
    }

    /// Where in the file an address of this mapping is.
    pub(super) fn file_offset(&self, address: u64) -> u64 {
        address
            .wrapping_sub(self.range.start)
            .wrapping_add(self.offset)
    }

    /// Whether it is an executable that was copied ([`lazaret_wall::executable`]): as
    /// others could not read it, as it could not be mounted, or for some hundred workers
    /// more.
    pub(super) fn is_copied_executable(&self) -> bool {
        self.name.starts_with("/memfd:lazaret-worker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn lines_of_the_kernel_s_are_read() {
        let mapping = Mapping::parse(
            "55d0c0a00000-55d0c0b00000 r-xp 0001f000 fe:10 1234567                    /a path/with (deleted)",
        )
        .unwrap();
        assert_eq!(mapping.range, 0x55d0_c0a0_0000..0x55d0_c0b0_0000);
        assert!(mapping.executable);
        assert_eq!(mapping.name, "/a path/with (deleted)");
        assert_eq!(mapping.file_offset(0x55d0_c0a0_0010), 0x1f010);
        assert_eq!(
            (mapping.identity.major, mapping.identity.minor),
            (0xfe, 0x10)
        );
        let anonymous = Mapping::parse("7f00-8f00 rw-p 00000000 00:00 0 ").unwrap();
        assert!(!anonymous.executable && anonymous.name.is_empty());
        for line in ["", "x", "1-2 r-xp", "1-2 r-xp 0 0:0", "zz-2 r-xp 0 0:0 0"] {
            assert_eq!(Mapping::parse(line), None, "{line}");
        }
    }

    #[test]
    fn this_very_file_is_found_by_its_identity() {
        let file = File::open("/proc/self/exe").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mapped = maps.lines().filter_map(Mapping::parse);
        let identity = Identity::of(&file).unwrap();
        assert!(
            mapped
                .into_iter()
                .any(|one| one.identity == identity && one.executable)
        );
    }
}
