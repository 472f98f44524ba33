//! Incidents on disk: a file each, in `incidents` of the data directory.
//!
//! A damaged file is one incident lost, and said to be. What is kept is bounded
//! by number and size. The first to go is the oldest of the least severity, of
//! whoever has most: a tenant that floods the record loses its own.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use super::{Incident, SCHEMA, Severity};
use crate::aside::write_whole;
use crate::data_dir::check_name;

/// What can be wrong with the record of incidents.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is none of that name.
    #[error("there is no incident `{id}` here; `lazaret incidents` lists those that are kept")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// Several begin so.
    #[error("`{id}` is the beginning of {count} incidents' names; say more of it")]
    Ambiguous {
        /// What was asked for.
        id: String,
        /// How many.
        count: usize,
    },
    /// A file makes no sense.
    #[error(
        "{path}: {reason}: this incident's evidence is lost; remove the file once you have seen it"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file is newer than this program.
    #[error("{path} has schema {found}; this program knows {SCHEMA}: use a newer Lazaret")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    System {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most so many incidents.
    pub count: usize,
    /// At most so many bytes of them.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            count: 1000,
            bytes: 64 << 20,
        }
    }
}

/// An incident that is kept, by its file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// The tenant, if it was one's.
    pub tenant: Option<String>,
    /// Its file.
    pub path: PathBuf,
    /// Bytes in it.
    pub bytes: u64,
}

/// The largest file that is read: one that is larger is none of ours.
const LARGEST: u64 = 16 << 20;
/// Between the parts of a file's name. No name of a tenant has it.
const BETWEEN: char = '~';
/// Where the tenant's name would be, if there is none.
const NOBODY: &str = "";

/// The incidents of a data directory.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    retention: Retention,
    /// What is there, as far as this one has written: it is listed once.
    written: Mutex<Option<Vec<Entry>>>,
}

impl Store {
    /// Those of a data directory, whoever uses it meanwhile.
    pub fn of(data: &Path) -> Self {
        Self {
            directory: data.join(DIRECTORY),
            retention: Retention::default(),
            written: Mutex::default(),
        }
    }

    pub(crate) fn retaining(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// All that are kept, oldest first. Files that are none are left out.
    ///
    /// # Errors
    /// If the directory can't be listed; one that isn't there has none.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let fail = |source| StoreError::System {
            path: self.directory.clone(),
            source,
        };
        let directory = match fs::read_dir(&self.directory) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fail(error)),
        };
        let mut all = Vec::new();
        for entry in directory {
            let entry = entry.map_err(fail)?;
            if let Some(entry) = named(&entry.path()) {
                // It may go while the others are listed.
                let bytes = fs::metadata(&entry.path).map(|about| about.len());
                all.extend(bytes.ok().map(|bytes| Entry { bytes, ..entry }));
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// The incident with this name, or the only one whose name begins so.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Ambiguous`], and whatever is
    /// wrong with its file.
    pub fn find(&self, id: &str) -> Result<Incident, StoreError> {
        let mut found: Vec<Entry> = self.list()?;
        found.retain(|entry| !id.is_empty() && entry.id.starts_with(id));
        match found.as_slice() {
            [entry] => self.read(entry),
            [] => Err(StoreError::NotFound { id: id.to_owned() }),
            _ => Err(StoreError::Ambiguous {
                id: id.to_owned(),
                count: found.len(),
            }),
        }
    }

    /// One of those that were listed.
    ///
    /// # Errors
    /// Whatever is wrong with its file.
    pub fn read(&self, entry: &Entry) -> Result<Incident, StoreError> {
        let path = &entry.path;
        let corrupt = |reason: String| StoreError::Corrupt {
            path: path.clone(),
            reason,
        };
        let mut bytes = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => StoreError::NotFound {
                    id: entry.id.clone(),
                },
                _ => StoreError::System {
                    path: path.clone(),
                    source,
                },
            })?;
        if bytes.len() as u64 > LARGEST {
            return Err(corrupt(format!("it has more than {LARGEST} bytes")));
        }
        match serde_json::from_slice::<Incident>(&bytes) {
            Ok(incident) if incident.schema <= SCHEMA => Ok(incident),
            other => {
                let schema = serde_json::from_slice::<serde_json::Value>(&bytes)
                    .ok()
                    .and_then(|value| value.get("schema")?.as_u64());
                match (schema, other) {
                    (Some(found), _) if found > u64::from(SCHEMA) => Err(StoreError::Newer {
                        path: path.clone(),
                        found,
                    }),
                    (_, Err(error)) => Err(corrupt(error.to_string())),
                    (_, Ok(_)) => Err(corrupt("its schema is no number".into())),
                }
            }
        }
    }

    /// Keeps an incident, and lets go of what is over the bounds then.
    pub(crate) fn write(&self, incident: &Incident) -> Result<(), StoreError> {
        let tenant = incident.subject.tenant.as_deref().unwrap_or(NOBODY);
        let name = format!(
            "{}{BETWEEN}{}{BETWEEN}{tenant}.json",
            incident.id,
            incident.severity.name()
        );
        let path = self.directory.join(name);
        let fail = |source| StoreError::System {
            path: path.clone(),
            source,
        };
        let text =
            serde_json::to_vec_pretty(incident).map_err(|error| fail(io::Error::other(error)))?;
        fs::create_dir_all(&self.directory).map_err(fail)?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = match written.take() {
            Some(kept) => kept,
            None => self.list()?,
        };
        write_whole(&path, &text).map_err(fail)?;
        kept.push(Entry {
            id: incident.id.clone(),
            severity: incident.severity,
            tenant: incident.subject.tenant.clone(),
            path,
            bytes: text.len() as u64,
        });
        self.rotate(&mut kept)?;
        *written = Some(kept);
        Ok(())
    }

    fn rotate(&self, kept: &mut Vec<Entry>) -> Result<(), StoreError> {
        let mut bytes: u64 = kept.iter().map(|entry| entry.bytes).sum();
        while kept.len() > self.retention.count || bytes > self.retention.bytes {
            let Some(victim) = victim(kept) else {
                break;
            };
            let gone = kept.remove(victim);
            bytes = bytes.saturating_sub(gone.bytes);
            if let Err(source) = fs::remove_file(&gone.path)
                && source.kind() != io::ErrorKind::NotFound
            {
                return Err(StoreError::System {
                    path: gone.path,
                    source,
                });
            }
        }
        Ok(())
    }
}

/// The directory of incidents in a data directory.
pub(crate) const DIRECTORY: &str = "incidents";

/// Which of these goes first: of whoever has most, the least severe, and of
/// those the oldest. The newest of all stays, as it has just come.
fn victim(kept: &[Entry]) -> Option<usize> {
    let older = kept.split_last().map_or(kept, |(_, older)| older);
    let mut counts: HashMap<Option<&str>, usize> = HashMap::new();
    for entry in older {
        *counts.entry(entry.tenant.as_deref()).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    older
        .iter()
        .enumerate()
        .filter(|(_, entry)| counts.get(&entry.tenant.as_deref()) == Some(&most))
        .min_by_key(|(place, entry)| (entry.severity, *place))
        .map(|(place, _)| place)
}

/// What a file's name says, if it is an incident's.
fn named(path: &Path) -> Option<Entry> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let mut parts = name.split(BETWEEN);
    let (id, severity, tenant) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || id.is_empty() {
        return None;
    }
    Some(Entry {
        id: id.to_owned(),
        severity: severity.parse().ok()?,
        tenant: match tenant {
            NOBODY => None,
            name => {
                check_name(name).ok()?;
                Some(name.to_owned())
            }
        },
        path: path.to_owned(),
        bytes: 0,
    })
}

/// A new name: the time in UTC to the microsecond, and a random number, as
/// several hosts may write into one directory after one another.
pub(super) fn id(now: jiff::Timestamp) -> String {
    let time = jiff::fmt::strtime::format("%Y%m%dT%H%M%S.%6fZ", now).unwrap_or_default();
    let mut random = [0; 2];
    // Without any it is only the time.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    format!("{time}-{:02x}{:02x}", random[0], random[1])
}

#[cfg(test)]
mod tests {
    use super::super::{Evidence, Stamp, Subject, What};
    use super::*;

    fn incident(number: u64, tenant: Option<&str>, what: What) -> Incident {
        let subject = Subject {
            tenant: tenant.map(str::to_owned),
            worker: "tenant".into(),
            module: None,
        };
        Incident {
            id: format!("20260101T000000.{number:06}Z-0000"),
            ..Incident::new(Stamp::now(), subject, what, Evidence::default())
        }
    }

    fn low() -> What {
        What::Limit {
            limit: "memory".into(),
            detail: "1 GiB".into(),
        }
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::of(directory.path());
        assert_eq!(store.list().unwrap(), []);
        let one = incident(1, Some("shop.v-2_x"), What::UnaskedExit { code: 7 });
        let two = incident(2, None, low());
        store.write(&two).unwrap();
        store.write(&one).unwrap();
        let list = store.list().unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].tenant.as_deref(), Some("shop.v-2_x"));
        assert_eq!(
            (list[0].severity, list[1].severity),
            (Severity::High, Severity::Low)
        );
        assert_eq!(store.read(&list[0]).unwrap(), one);
        assert_eq!(store.find(&two.id).unwrap(), two);
        assert_eq!(store.find("20260101T000000.000001").unwrap(), one);
        assert!(matches!(
            store.find("2026"),
            Err(StoreError::Ambiguous { count: 2, .. })
        ));
        assert!(matches!(store.find(""), Err(StoreError::NotFound { .. })));
        assert!(matches!(
            store.find("1999"),
            Err(StoreError::NotFound { .. })
        ));
    }

    #[test]
    fn a_damaged_file_is_one_incident_lost() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::of(directory.path());
        let one = incident(1, None, low());
        store.write(&one).unwrap();
        store.write(&incident(2, None, low())).unwrap();
        let list = store.list().unwrap();
        let whole = fs::read(&list[0].path).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&list[0].path, &whole[..length]).unwrap();
            assert!(
                matches!(store.read(&list[0]), Err(StoreError::Corrupt { .. })),
                "{length} bytes"
            );
        }
        fs::write(&list[0].path, b"{\"schema\": 900}").unwrap();
        assert!(matches!(
            store.read(&list[0]),
            Err(StoreError::Newer { found: 900, .. })
        ));
        // Others are none of its business, nor are files that are no incidents.
        fs::write(directory.path().join("incidents/notes.json"), b"").unwrap();
        assert_eq!(store.list().unwrap().len(), 2);
        assert!(store.read(&list[1]).is_ok());
    }

    #[test]
    fn whoever_floods_the_record_loses_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::of(directory.path()).retaining(Retention {
            count: 5,
            bytes: u64::MAX,
        });
        store.write(&incident(1, Some("quiet"), low())).unwrap();
        store
            .write(&incident(
                2,
                Some("loud"),
                What::ForbiddenCall { call: None },
            ))
            .unwrap();
        for number in 3..40 {
            store.write(&incident(number, Some("loud"), low())).unwrap();
        }
        let list = store.list().unwrap();
        let numbers: Vec<&str> = list.iter().map(|entry| &entry.id[16..22]).collect();
        // The neighbour's, the worst, and the newest.
        assert_eq!(numbers, ["000001", "000002", "000037", "000038", "000039"]);
    }

    #[test]
    fn size_is_bounded_too() {
        let directory = tempfile::tempdir().unwrap();
        let one = serde_json::to_vec_pretty(&incident(1, None, low()))
            .unwrap()
            .len() as u64;
        let store = Store::of(directory.path()).retaining(Retention {
            count: 1000,
            bytes: one * 3 + 10,
        });
        for number in 1..10 {
            store.write(&incident(number, None, low())).unwrap();
        }
        assert_eq!(store.list().unwrap().len(), 3);
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("incidents"), b"").unwrap();
        let store = Store::of(directory.path());
        assert!(matches!(
            store.write(&incident(1, None, low())),
            Err(StoreError::System { .. })
        ));
    }
}
