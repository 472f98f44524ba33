//! Files that are written beside their place and then put there: whoever looks finds
//! nothing or all of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A file beside its place. It is removed unless it is put there.
#[derive(Debug)]
pub(crate) struct Aside {
    file: File,
    path: PathBuf,
    /// Whether its name is its own.
    named: bool,
}

impl Aside {
    /// A new file beside `place`, with this mode.
    pub(crate) fn create(place: &Path, mode: u32) -> io::Result<Self> {
        loop {
            let path = name(place);
            let opened = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path);
            match opened {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        path,
                        named: true,
                    });
                }
                // Of somebody who was killed, and whose number is this process's now.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The file.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts it at `place`, instead of what is there.
    pub(crate) fn put(mut self, place: &Path) -> io::Result<()> {
        fs::rename(&self.path, place)?;
        self.named = false;
        Ok(())
    }

    /// Puts it at `place`, unless something is there.
    pub(crate) fn put_if_free(self, place: &Path) -> io::Result<()> {
        match fs::hard_link(&self.path, place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A name beside `place` that nobody else uses: threads may write the same file at the
/// same time.
fn name(place: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    place.with_extension(format!("tmp{}-{number}", std::process::id()))
}

/// Whether a file has such a name.
pub(crate) fn is_aside(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let numbers = extension.and_then(|extension| extension.strip_prefix("tmp")?.split_once('-'));
    numbers.is_some_and(|(process, number)| {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        digits(process) && digits(number)
    })
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut aside = Aside::create(path, 0o666)?;
    aside.file().write_all(bytes)?;
    aside.file().sync_all()?;
    aside.put(path)?;
    sync_directory(directory)
}

/// Makes renames in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_aside_is_known_again() {
        for path in ["modules/hash.wasm", "lazaret.json", "cache/key", "a.b/c"] {
            assert!(is_aside(&name(Path::new(path))));
        }
        for name in [
            "a.wasm",
            "lazaret.json",
            "lazaret.tmp",
            "a.tmp1",
            "a.tmpx-1",
            "a.tmp1-x",
            "tmp1-2",
        ] {
            assert!(!is_aside(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn what_is_not_put_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("there");
        let names = || fs::read_dir(&directory).unwrap().count();
        drop(Aside::create(&place, 0o600).unwrap());
        assert_eq!(names(), 0);
        for text in ["one", "two"] {
            let mut aside = Aside::create(&place, 0o600).unwrap();
            aside.file().write_all(text.as_bytes()).unwrap();
            aside.put_if_free(&place).unwrap();
            assert_eq!(
                (fs::read(&place).unwrap().as_slice(), names()),
                (&b"one"[..], 1)
            );
        }
        write_whole(&place, b"three").unwrap();
        assert_eq!(
            (fs::read(&place).unwrap().as_slice(), names()),
            (&b"three"[..], 1)
        );
    }

    #[test]
    fn a_name_that_was_left_over_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("there");
        // Which the next ones would have.
        let next = name(&place);
        let (front, number) = next.to_str().unwrap().rsplit_once('-').unwrap();
        let number: u64 = number.parse().unwrap();
        for left in number..number + 50 {
            fs::write(format!("{front}-{left}"), b"left").unwrap();
        }
        let aside = Aside::create(&place, 0o600).unwrap();
        aside.put(&place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"");
    }
}
