//! The data directory: where it is what, who holds it, which version it has.
//!
//! ```text
//! DIR/lazaret.json   format version; written last, so a directory without it is not one
//! DIR/lock           held by the host that uses the directory
//! DIR/modules/HASH.wasm
//! DIR/cache/KEY.code compiled modules; may be deleted at any time
//! DIR/tenants/NAME/  an image (crate lazaret-image) and a log
//! DIR/snapshots/NAME/TAG/  an image that shares files with the tenant's
//! DIR/incidents/     what workers did that no worker should, a file each
//! DIR/quarantine/    tenants whose code must not run, a file each
//! ```

mod description;
mod lock;
mod removal;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::aside::{is_aside, write_whole};
use description::{VERSION, check};
use lock::{hold, in_use};
pub(crate) use removal::{remove_whole, removed, removed_name};

/// Why a data directory can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Somebody else uses it.
    #[error(
        "{path} is in use by another Lazaret process{holder}; wait for it, or use another directory (--data)"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// ` (pid N)` if it said.
        holder: String,
    },
    /// It is newer than this program.
    #[error(
        "{path} has format version {found}; this program knows versions up to {VERSION}: use a newer Lazaret"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Its description makes no sense.
    #[error(
        "{path}: {reason}; is this a Lazaret data directory? Restore the file, or name an empty directory"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It has other things in it.
    #[error("{path} is not empty and not a Lazaret data directory; name another (--data)")]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    System {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A data directory that this process holds.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Locked as long as it is open (flock(2)).
    _lock: File,
}

impl DataDir {
    /// Opens the directory, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let system = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::System { path, source }
        };
        let description = path.join("lazaret.json");
        if !description.exists() {
            let others = match fs::read_dir(path) {
                Ok(entries) => entries.flatten().any(|entry| {
                    !matches!(
                        entry.file_name().to_str(),
                        Some(
                            "lock"
                                | "modules"
                                | "tenants"
                                | "snapshots"
                                | "cache"
                                | "incidents"
                                | "quarantine"
                                | "workers"
                        )
                    ) && !is_aside(&entry.path())
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(system(path)(error)),
            };
            if others {
                return Err(DataDirError::NotOurs {
                    path: path.to_owned(),
                });
            }
        }
        fs::create_dir_all(path).map_err(system(path))?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(system(&lock_path))?;
        if hold(&lock, path).is_err() {
            return Err(in_use(path));
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(system(&lock_path))?;
        match fs::read(&description) {
            Ok(bytes) => check(&description, path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_whole(&description, &description::new()).map_err(system(&description))?;
            }
            Err(error) => return Err(system(&description)(error)),
        }
        let this = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        for directory in [this.tenants(), this.path.join("modules")] {
            fs::create_dir_all(&directory).map_err(system(&directory))?;
        }
        this.sweep();
        Ok(this)
    }

    /// Removes what a crash left half-made or half-removed.
    fn sweep(&self) {
        let snapshots = self.path.join("snapshots");
        // A tenant's snapshots go with it, and before it: as long as it is there, it says so.
        for entry in entries(&self.tenants()) {
            if let Some(name) = removed_name(&entry)
                && !self.tenants().join(name).exists()
            {
                let path = snapshots.join(name);
                if path.exists() {
                    swept(remove_whole(&path), &path);
                }
            }
        }
        let mut places = vec![self.tenants(), snapshots.clone()];
        places.extend(entries(&snapshots));
        for path in places.iter().flat_map(|place| entries(place)) {
            let name = path.file_name().unwrap_or_default();
            if name.as_encoded_bytes().starts_with(b".") {
                swept(fs::remove_dir_all(&path), &path);
            }
        }
        let places = [
            self.path.clone(),
            self.path.join("modules"),
            self.path.join("cache"),
            self.path.join(crate::incident::DIRECTORY),
            self.path.join(crate::quarantine::DIRECTORY),
        ];
        for path in places.iter().flat_map(|place| entries(place)) {
            if is_aside(&path) {
                swept(fs::remove_file(&path), &path);
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn tenants(&self) -> PathBuf {
        self.path.join("tenants")
    }

    /// Where the snapshots of a tenant are.
    pub(crate) fn snapshots(&self, name: &str) -> PathBuf {
        self.path.join("snapshots").join(name)
    }

    pub(crate) fn module(&self, hash: &str) -> PathBuf {
        self.path.join("modules").join(format!("{hash}.wasm"))
    }

    /// Names of all tenants, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(self.tenants())?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| check_name(name).is_ok())
            .collect();
        names.sort();
        Ok(names)
    }
}

/// The paths in a directory, as far as it can be listed.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Says that a leftover stays.
fn swept(removed: io::Result<()>, path: &Path) {
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "a leftover could not be removed");
    }
}

/// A data directory that no host uses while this exists, and in which nothing
/// is changed: it may be on a disk that can't be written.
#[derive(Debug)]
pub(crate) struct LookedAt {
    pub path: PathBuf,
    /// Nothing if no host has ever made a lock.
    _lock: Option<File>,
}

impl LookedAt {
    /// Locks out hosts. Says what is wrong with the directory's description, if
    /// it isn't that the directory is something else altogether.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<DataDirError>), DataDirError> {
        let system = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::System { path, source }
        };
        let lock_path = path.join("lock");
        let lock = match File::open(&lock_path) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(system(&lock_path)(error)),
        };
        if let Some(lock) = &lock
            && let Err(error) = hold(lock, path)
        {
            return Err(match error {
                rustix::io::Errno::WOULDBLOCK => in_use(path),
                error => system(&lock_path)(error.into()),
            });
        }
        let description = path.join("lazaret.json");
        let wrong = match fs::read(&description) {
            Ok(bytes) => check(&description, path, &bytes).err(),
            // A crash at the very beginning, or a file that is lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !path.join("tenants").is_dir() {
                    return Err(DataDirError::NotOurs {
                        path: path.to_owned(),
                    });
                }
                Some(system(&description)(error))
            }
            Err(error) => Some(system(&description)(error)),
        };
        if let Some(newer @ DataDirError::Newer { .. }) = wrong {
            return Err(newer);
        }
        let path = path.to_owned();
        Ok((Self { path, _lock: lock }, wrong))
    }
}

/// Whether `name` can be a tenant's: it becomes a file name.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > 64 {
        return Err("it is longer than 64 bytes");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("it does not begin with a letter or digit");
    }
    if !name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    {
        return Err("it has other characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in [
            "",
            "..",
            ".",
            "a/b",
            "../a",
            "a\0b",
            "-a",
            ".hidden",
            "ä",
            "a b",
            &"x".repeat(300),
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["a", "counter-2", "A.b_c", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }

    /// A host that was killed while it made the directory, or while it removed
    /// a tenant, leaves what the next one takes away.
    #[test]
    fn what_a_crash_left_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let path = |path: &str| directory.path().join(path);
        fs::write(path("lazaret.tmp77-0"), "{").unwrap();
        drop(DataDir::open(directory.path()).unwrap());
        assert!(!path("lazaret.tmp77-0").exists());
        for made in [
            "tenants/.removed-a-77",
            "tenants/.removed-b-77.1",
            "tenants/b",
            "tenants/.new-c",
            "snapshots/a/s",
            "snapshots/b/s",
            "snapshots/b/.t.new",
            "snapshots/gone/s",
        ] {
            fs::create_dir_all(path(made)).unwrap();
        }
        fs::write(path("modules/00.tmp77-3"), "x").unwrap();
        fs::write(path("modules/00.wasm"), "x").unwrap();
        drop(DataDir::open(directory.path()).unwrap());
        let names = |path: PathBuf| -> Vec<String> {
            let names = entries(&path).filter_map(|path| Some(path.file_name()?.to_str()?.into()));
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        assert_eq!(names(path("tenants")), ["b"]);
        // Those of `b` are of the tenant that has the name now; nothing says
        // that anybody meant to remove those of `gone`.
        assert_eq!(names(path("snapshots")), ["b", "gone"]);
        assert_eq!(names(path("snapshots/b")), ["s"]);
        assert_eq!(names(path("modules")), ["00.wasm"]);
    }

    #[test]
    fn a_directory_has_one_holder() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDir::open(directory.path()).unwrap();
        let refused = DataDir::open(directory.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("pid {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        DataDir::open(directory.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_looked_at_has_no_holder_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let held = DataDir::open(directory.path()).unwrap();
        assert!(matches!(
            LookedAt::open(directory.path()),
            Err(DataDirError::InUse { .. })
        ));
        drop(held);
        let (looked_at, wrong) = LookedAt::open(directory.path()).unwrap();
        assert!(wrong.is_none());
        assert!(matches!(
            DataDir::open(directory.path()),
            Err(DataDirError::InUse { .. })
        ));
        drop(looked_at);
        fs::remove_file(directory.path().join("lazaret.json")).unwrap();
        assert!(LookedAt::open(directory.path()).unwrap().1.is_some());
        assert!(!directory.path().join("lazaret.json").exists());
        let other = tempfile::tempdir().unwrap();
        assert!(matches!(
            LookedAt::open(other.path()),
            Err(DataDirError::NotOurs { .. })
        ));
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_newer_a_corrupt_and_a_foreign_directory_are_refused_untouched() {
        let directory = tempfile::tempdir().unwrap();
        drop(DataDir::open(directory.path()).unwrap());
        let description = directory.path().join("lazaret.json");
        fs::write(&description, r#"{"format":"lazaret-data","version":2}"#).unwrap();
        assert!(matches!(
            DataDir::open(directory.path()),
            Err(DataDirError::Newer { found: 2, .. })
        ));
        fs::write(&description, "{").unwrap();
        assert!(matches!(
            DataDir::open(directory.path()),
            Err(DataDirError::Corrupt { .. })
        ));
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(
            DataDir::open(other.path()),
            Err(DataDirError::NotOurs { .. })
        ));
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
    }
}
