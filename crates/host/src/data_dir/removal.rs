//! Directories are removed whole: renamed first, so that what a crash leaves is known.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::check_name;
use crate::aside::sync_directory;

/// Where a directory goes that is being removed: a name beside it that nobody
/// else uses.
pub(crate) fn removed(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = std::process::id();
    path.with_file_name(format!("{REMOVED}{name}-{process}.{number}"))
}

/// What the names that [`removed`] gives begin with.
const REMOVED: &str = ".removed-";

/// The name that a directory had before it was about to be removed.
pub(crate) fn removed_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?.strip_prefix(REMOVED)?;
    let (name, _) = name.rsplit_once('-')?;
    check_name(name).ok()?;
    Some(name)
}

/// Removes a directory so that it is there whole or not at all.
pub(crate) fn remove_whole(path: &Path) -> io::Result<()> {
    let aside = removed(path);
    fs::rename(path, &aside)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    fs::remove_dir_all(&aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aside::is_aside;

    #[test]
    fn the_name_of_what_is_removed_is_known_again() {
        for name in ["a", "a-1", "a-1-2", "a.tmp1-2"] {
            let path = Path::new("/data/tenants").join(name);
            assert_eq!(removed_name(&removed(&path)), Some(name));
            assert_ne!(removed(&path), removed(&path));
            assert!(!is_aside(&removed(&path)));
        }
        // As releases before this one had it.
        assert_eq!(removed_name(Path::new(".removed-a-b-77")), Some("a-b"));
        for name in ["a", "a-1", ".a.new", ".new-a", ".removed--1", ".removed-a"] {
            assert_eq!(removed_name(Path::new(name)), None, "{name}");
        }
    }
}
