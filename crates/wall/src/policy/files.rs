//! What Landlock lets a program do below a granted directory.

use landlock::{AccessFs, BitFlags};

use super::Uses;

/// The rights below a granted directory: those that the imports can use, and
/// those that change something only if it is granted to be written.
///
/// Devices, sockets and named pipes can't be made, and no device can be told
/// anything (`ioctl`), whatever was granted.
pub fn files(writable: bool, uses: Uses) -> BitFlags<AccessFs> {
    let mut rights = BitFlags::empty();
    let mut when = |used: Uses, right: BitFlags<AccessFs>| {
        if uses.any(used) {
            rights |= right;
        }
    };
    when(Uses::OPEN, AccessFs::ReadFile.into());
    // A directory is opened to be listed, and to be a place for paths.
    when(
        Uses::LIST.with(Uses::OPEN).with(Uses::PATHS),
        AccessFs::ReadDir.into(),
    );
    if writable {
        when(
            Uses::OPEN,
            AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate,
        );
        when(Uses::MAKE_DIRECTORY, AccessFs::MakeDir.into());
        when(Uses::REMOVE, AccessFs::RemoveFile | AccessFs::RemoveDir);
        // To rename is to remove here and to make there, whatever it is.
        when(
            Uses::RENAME,
            AccessFs::RemoveFile
                | AccessFs::RemoveDir
                | AccessFs::MakeReg
                | AccessFs::MakeDir
                | AccessFs::MakeSym
                | AccessFs::Refer,
        );
        when(Uses::SYMLINK, AccessFs::MakeSym.into());
        when(
            Uses::LINK,
            AccessFs::MakeReg | AccessFs::MakeSym | AccessFs::Refer,
        );
    }
    rights
}

#[cfg(test)]
mod tests {
    use landlock::{ABI, Access};

    use super::*;

    #[test]
    fn reading_never_changes_anything() {
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        assert_eq!(files(false, Uses::ALL), reading);
        for bit in 0..32 {
            let uses = Uses::from_bits(1 << bit);
            assert!(reading.contains(files(false, uses)), "{uses}");
            assert!(files(true, Uses::ALL).contains(files(true, uses)), "{uses}");
        }
        assert!(files(true, Uses::NONE).is_empty());
    }

    #[test]
    fn the_widest_is_all_but_special_files() {
        assert_eq!(
            AccessFs::from_all(ABI::V6) & !files(true, Uses::ALL),
            AccessFs::Execute
                | AccessFs::MakeChar
                | AccessFs::MakeBlock
                | AccessFs::MakeSock
                | AccessFs::MakeFifo
                | AccessFs::IoctlDev
        );
    }
}
