//! Quarantine: tenants whose code runs no more until somebody says so.
//!
//! Who is in it is a file each in `quarantine` of the data directory, so that
//! it outlives the host; a file of a tenant that was released says when, as
//! incidents before that don't count again.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::aside::write_whole;
use crate::data_dir::check_name;
use crate::incident::{Incident, Severity, Stamp, Store};

/// When a tenant is quarantined by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantinePolicy {
    /// After so many incidents.
    pub after: NonZeroU32,
    /// Of this severity or worse.
    pub severity: Severity,
}

/// Why a tenant is in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Since when, in UTC (RFC 3339).
    pub at: String,
    /// Why, in words.
    pub reason: String,
    /// The last incident before, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
}

/// A quarantine that can't be imposed, lifted or read.
#[derive(Debug, Error)]
#[error("{path}: {source}")]
pub struct QuarantineError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// What a tenant's file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
enum Word {
    Quarantined(Quarantined),
    Released {
        /// Incidents with names up to this don't count any more.
        until: String,
    },
}

#[derive(Debug, Default)]
struct Book {
    words: HashMap<String, Word>,
    /// Incidents that count, by tenant, as far as they have been counted.
    counts: HashMap<String, u32>,
}

/// The quarantine of a host.
#[derive(Debug)]
pub(crate) struct Quarantine {
    directory: Option<PathBuf>,
    policy: Option<QuarantinePolicy>,
    book: Mutex<Book>,
    /// How many are in it: looked at in every call.
    inside: AtomicUsize,
}

/// The directory in a data directory.
pub(crate) const DIRECTORY: &str = "quarantine";

impl Quarantine {
    /// That of a data directory, or of none.
    ///
    /// A tenant whose file is damaged is in it: nobody gets out by that, and
    /// nobody else is held up.
    ///
    /// # Errors
    /// If the directory can't be listed.
    pub(crate) fn open(
        data: Option<&Path>,
        policy: Option<QuarantinePolicy>,
    ) -> Result<Self, QuarantineError> {
        let directory = data.map(|data| data.join(DIRECTORY));
        let mut words = HashMap::new();
        if let Some(directory) = &directory {
            for (name, path) in named(directory)? {
                let word = fs::read(&path)
                    .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
                    .unwrap_or_else(|error| {
                        Word::Quarantined(Quarantined {
                            at: jiff::Timestamp::now().to_string(),
                            reason: format!("{} can't be read: {error}", path.display()),
                            incident: None,
                        })
                    });
                words.insert(name, word);
            }
        }
        let inside = count(&words);
        Ok(Self {
            directory,
            policy,
            book: Mutex::new(Book {
                words,
                counts: HashMap::new(),
            }),
            inside: AtomicUsize::new(inside),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a tenant is in quarantine, if it is.
    pub(crate) fn of(&self, tenant: &str) -> Option<Quarantined> {
        if self.inside.load(Relaxed) == 0 {
            return None;
        }
        match self.book().words.get(tenant) {
            Some(Word::Quarantined(why)) => Some(why.clone()),
            _ => None,
        }
    }

    /// Puts a tenant in quarantine; one that is there stays as it is.
    pub(crate) fn impose(
        &self,
        tenant: &str,
        reason: String,
        incident: Option<String>,
    ) -> Result<(), QuarantineError> {
        let mut book = self.book();
        if matches!(book.words.get(tenant), Some(Word::Quarantined(_))) {
            return Ok(());
        }
        let word = Word::Quarantined(Quarantined {
            at: jiff::Timestamp::now().to_string(),
            reason,
            incident,
        });
        // It holds from now on, even if the disk is full.
        book.words.insert(tenant.to_owned(), word.clone());
        self.inside.store(count(&book.words), Relaxed);
        self.write(tenant, &word)
    }

    /// Lets a tenant out: whether it was in.
    pub(crate) fn release(&self, tenant: &str) -> Result<bool, QuarantineError> {
        let mut book = self.book();
        if !matches!(book.words.get(tenant), Some(Word::Quarantined(_))) {
            return Ok(false);
        }
        let word = Word::Released {
            until: Stamp::now().id,
        };
        self.write(tenant, &word)?;
        book.counts.remove(tenant);
        book.words.insert(tenant.to_owned(), word);
        self.inside.store(count(&book.words), Relaxed);
        Ok(true)
    }

    /// The tenant is gone, and another of its name has done nothing.
    pub(crate) fn forget(&self, tenant: &str) -> Result<(), QuarantineError> {
        let mut book = self.book();
        book.counts.remove(tenant);
        if book.words.remove(tenant).is_none() {
            return Ok(());
        }
        self.inside.store(count(&book.words), Relaxed);
        let Some(path) = self.path(tenant) else {
            return Ok(());
        };
        fs::remove_file(&path).map_err(|source| QuarantineError { path, source })
    }

    /// Counts an incident, and puts its tenant in quarantine if that is one
    /// too many.
    pub(crate) fn count(&self, incident: &Incident, store: Option<&Store>) {
        let (Some(policy), Some(tenant)) = (self.policy, incident.subject.tenant.as_deref()) else {
            return;
        };
        if incident.severity < policy.severity {
            return;
        }
        let count = {
            let mut book = self.book();
            let count = match book.counts.get(tenant) {
                Some(count) => *count,
                None => earlier(&book, tenant, policy.severity, store),
            };
            let count = count.saturating_add(1);
            book.counts.insert(tenant.to_owned(), count);
            count
        };
        if count < policy.after.get() {
            return;
        }
        let reason = format!(
            "{count} incidents of severity {} or worse; the limit is {}",
            policy.severity, policy.after
        );
        tracing::error!(
            tenant,
            reason,
            "a tenant is quarantined: `lazaret release` lets it run again"
        );
        if let Err(error) = self.impose(tenant, reason, Some(incident.id.clone())) {
            tracing::error!(tenant, %error, "the quarantine holds, but only as long as this host runs");
        }
    }

    fn path(&self, tenant: &str) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(format!("{tenant}.json")))
    }

    fn write(&self, tenant: &str, word: &Word) -> Result<(), QuarantineError> {
        let Some(path) = self.path(tenant) else {
            return Ok(());
        };
        let text = serde_json::to_vec_pretty(word).unwrap_or_default();
        write_whole(&path, &text).map_err(|source| QuarantineError { path, source })
    }
}

/// The incidents of a tenant on record that count.
fn earlier(book: &Book, tenant: &str, severity: Severity, store: Option<&Store>) -> u32 {
    let after = match book.words.get(tenant) {
        Some(Word::Released { until }) => until.as_str(),
        _ => "",
    };
    let list = store
        .and_then(|store| store.list().ok())
        .unwrap_or_default();
    let counts = list.iter().filter(|entry| {
        entry.tenant.as_deref() == Some(tenant)
            && entry.severity >= severity
            && entry.id.as_str() > after
    });
    u32::try_from(counts.count()).unwrap_or(u32::MAX)
}

fn count(words: &HashMap<String, Word>) -> usize {
    words
        .values()
        .filter(|word| matches!(word, Word::Quarantined(_)))
        .count()
}

/// The tenants that have a file, and their files.
fn named(directory: &Path) -> Result<Vec<(String, PathBuf)>, QuarantineError> {
    let fail = |source| QuarantineError {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.and_then(|name| name.strip_suffix(".json"))
            && check_name(name).is_ok()
        {
            all.push((name.to_owned(), path.clone()));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{Evidence, Subject, What};

    fn incident(tenant: &str, what: What) -> Incident {
        let subject = Subject {
            tenant: Some(tenant.into()),
            worker: "tenant".into(),
            module: None,
        };
        Incident::new(Stamp::now(), subject, what, Evidence::default())
    }

    fn violation(tenant: &str) -> Incident {
        incident(tenant, What::ForbiddenCall { call: None })
    }

    const AFTER_TWO: Option<QuarantinePolicy> = Some(QuarantinePolicy {
        after: NonZeroU32::new(2).unwrap(),
        severity: Severity::High,
    });

    #[test]
    fn incidents_add_up_over_hosts_and_a_release_begins_anew() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::of(data.path());
        let open = || Quarantine::open(Some(data.path()), AFTER_TWO).unwrap();
        let happens = |quarantine: &Quarantine, incident: Incident| {
            quarantine.count(&incident, Some(&store));
            store.write(&incident).unwrap();
        };
        let quarantine = open();
        for _ in 0..5 {
            happens(
                &quarantine,
                incident(
                    "a",
                    What::Limit {
                        limit: "time".into(),
                        detail: String::new(),
                    },
                ),
            );
        }
        happens(&quarantine, violation("a"));
        assert_eq!(quarantine.of("a"), None);
        // Another host remembers the first.
        let quarantine = open();
        let last = violation("a");
        let id = last.id.clone();
        happens(&quarantine, last);
        assert_eq!(quarantine.of("a").unwrap().incident, Some(id));
        assert_eq!(quarantine.of("b"), None);
        // And the next one that it is in quarantine.
        let quarantine = open();
        assert!(quarantine.of("a").is_some());
        assert!(quarantine.release("a").unwrap());
        assert!(!quarantine.release("a").unwrap());
        assert_eq!(quarantine.of("a"), None);
        let quarantine = open();
        assert_eq!(quarantine.of("a"), None);
        happens(&quarantine, violation("a"));
        assert_eq!(quarantine.of("a"), None, "the old ones don't count");
        happens(&quarantine, violation("a"));
        assert!(quarantine.of("a").is_some());
        quarantine.forget("a").unwrap();
        assert_eq!(quarantine.of("a"), None);
        assert_eq!(open().of("a"), None);
    }

    #[test]
    fn nobody_gets_out_by_a_damaged_file_or_a_full_disk() {
        let data = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(Some(data.path()), None).unwrap();
        quarantine.impose("a", "because".into(), None).unwrap();
        let path = data.path().join(DIRECTORY).join("a.json");
        fs::write(&path, b"{").unwrap();
        fs::write(path.with_file_name("c.json"), b"{\"state\": \"released\"}").unwrap();
        let damaged = Quarantine::open(Some(data.path()), None).unwrap();
        for name in ["a", "c"] {
            assert!(damaged.of(name).unwrap().reason.contains("can't be read"));
        }
        assert_eq!(damaged.of("b"), None, "nobody else is held up");
        assert!(damaged.release("c").unwrap());
        let released = Quarantine::open(Some(data.path()), None).unwrap();
        assert_eq!(released.of("c"), None);
        // A directory that is none can't be written.
        fs::remove_dir_all(data.path().join(DIRECTORY)).unwrap();
        fs::write(data.path().join(DIRECTORY), b"").unwrap();
        assert!(quarantine.impose("b", "because".into(), None).is_err());
        assert!(quarantine.of("b").is_some(), "it holds all the same");
        assert!(quarantine.release("b").is_err());
        assert!(quarantine.of("b").is_some(), "not let out either");
    }
}
