//! Checking a data directory without changing anything in it.
//!
//! Images are checked by `lazaret_image`; here is what is above them: names,
//! states, modules, snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use lazaret_image::{
    CheckError, CheckEvent, Depth, Finding, PageId, Problem, Severity, TenantId, check,
};
use lazaret_wire::codec::Message;
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::data_dir::{DataDirError, LookedAt, check_name, removed_name};
use crate::tenant::hex;
use crate::tenant::log::is_log;
use crate::tenant::meta::Meta;

/// Why a data directory could not be checked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FsckError {
    /// It is in use, of a newer version, or something else.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// An image is in use by somebody who doesn't hold the data directory.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// There is no such tenant.
    #[error("there is no tenant `{name}` in {directory}; `lazaret ps` lists those that exist")]
    NotFound {
        /// The name.
        name: String,
        /// The data directory.
        directory: PathBuf,
    },
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FsckFinding {
    /// How bad it is.
    #[serde(serialize_with = "word")]
    pub severity: Severity,
    /// Whose it is, if it is a tenant's.
    pub tenant: Option<String>,
    /// In which snapshot of the tenant, if in one.
    pub snapshot: Option<String>,
    /// The file or directory.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub offset: Option<u64>,
    /// The region whose pages are lost.
    pub region: Option<String>,
    /// The first page that is lost.
    pub first_page: Option<u64>,
    /// The last one.
    pub last_page: Option<u64>,
    /// What it is.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

fn word<S: Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(severity)
}

/// What a check tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsckEvent {
    /// So many bytes are in the files that will be looked at: what a deep check
    /// reads at most.
    Begun {
        /// How many.
        bytes: u64,
    },
    /// Something was found.
    Finding(FsckFinding),
    /// So many more bytes of pages were compared.
    Verified {
        /// How many.
        bytes: u64,
    },
}

/// Checks the tenants `names` of a data directory, with their snapshots and
/// modules, or all of it if there are none. Nothing is changed, and nothing is
/// opened for writing. No host can use the directory meanwhile.
///
/// What is found is told as it is found; only what keeps the check from being
/// made is an error.
///
/// # Errors
/// If a host uses the directory, or a tenant isn't there.
pub fn fsck(
    directory: &Path,
    names: &[String],
    depth: Depth,
    tell: &mut dyn FnMut(FsckEvent),
) -> Result<(), FsckError> {
    let (data, wrong) = LookedAt::open(directory)?;
    let mut run = Run {
        path: data.path.clone(),
        depth,
        tell,
        modules: BTreeMap::new(),
        states_known: true,
    };
    if let Some(error) = wrong {
        let path = match &error {
            DataDirError::Corrupt { path, .. } | DataDirError::System { path, .. } => path,
            _ => &data.path,
        };
        let remedy = "restore the file; it says `{\"format\":\"lazaret-data\",\"version\":1}`";
        run.damage(Whose::default(), path, &error, remedy);
    }
    let tenants = run.list(&data.path.join("tenants"), !names.is_empty());
    for name in names {
        if !tenants.contains(name) {
            return Err(FsckError::NotFound {
                name: name.clone(),
                directory: data.path.clone(),
            });
        }
    }
    let chosen = |name: &String| names.is_empty() || names.contains(name);
    let mut images = Vec::new();
    for tenant in tenants.iter().filter(|name| chosen(name)) {
        images.push((tenant.clone(), None));
        let snapshots = run.list(&data.path.join("snapshots").join(tenant), false);
        images.extend(snapshots.into_iter().map(|tag| (tenant.clone(), Some(tag))));
    }
    if names.is_empty() {
        for owner in run.list(&data.path.join("snapshots"), false) {
            if !tenants.contains(&owner) {
                run.orphans(&owner);
            }
        }
    }
    let sizes = images
        .iter()
        .map(|(tenant, tag)| file_bytes(&run.directory(tenant, tag.as_deref())));
    let bytes = sizes.sum();
    (run.tell)(FsckEvent::Begun { bytes });
    let mut owner = None;
    for (tenant, tag) in &images {
        let found = run.image(tenant, tag.as_deref())?;
        match tag {
            None => owner = found,
            Some(tag) => run.same_tenant(tenant, tag, owner, found),
        }
    }
    if names.is_empty() {
        run.unused_modules();
    }
    Ok(())
}

/// To whom a finding belongs: tenant and snapshot.
type Whose<'a> = (Option<&'a str>, Option<&'a str>);

/// A check that runs.
struct Run<'a> {
    path: PathBuf,
    depth: Depth,
    tell: &'a mut dyn FnMut(FsckEvent),
    /// What is wrong with a module, by hash; nothing if it is sound.
    modules: BTreeMap<[u8; 32], Option<(String, &'static str)>>,
    /// Whether it is known of all that was looked at which module it has.
    states_known: bool,
}

impl Run<'_> {
    fn found(
        &mut self,
        severity: Severity,
        (tenant, snapshot): Whose<'_>,
        path: &Path,
        problem: impl ToString,
        remedy: &str,
    ) {
        (self.tell)(FsckEvent::Finding(FsckFinding {
            severity,
            tenant: tenant.map(str::to_owned),
            snapshot: snapshot.map(str::to_owned),
            path: path.to_owned(),
            offset: None,
            region: None,
            first_page: None,
            last_page: None,
            problem: problem.to_string(),
            remedy: remedy.to_owned(),
        }));
    }

    fn damage(&mut self, whose: Whose<'_>, path: &Path, problem: impl ToString, remedy: &str) {
        self.found(Severity::Damage, whose, path, problem, remedy);
    }

    fn directory(&self, tenant: &str, tag: Option<&str>) -> PathBuf {
        match tag {
            Some(tag) => self.path.join("snapshots").join(tenant).join(tag),
            None => self.path.join("tenants").join(tenant),
        }
    }

    fn module(&self, hash: &[u8; 32]) -> PathBuf {
        self.path
            .join("modules")
            .join(format!("{}.wasm", hex(hash)))
    }

    /// The names in a directory of tenants or snapshots, sorted; what else is
    /// there is told, unless `quiet`.
    fn list(&mut self, directory: &Path, quiet: bool) -> BTreeSet<String> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeSet::new(),
            Err(error) => {
                self.damage(
                    Whose::default(),
                    directory,
                    format!("it can't be listed: {error}"),
                    "check its permissions, and the disk",
                );
                return BTreeSet::new();
            }
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.damage(
                        Whose::default(),
                        directory,
                        format!("not all of it can be listed: {error}"),
                        "check the disk and the kernel log",
                    );
                    break;
                }
            };
            let (path, name) = (entry.path(), entry.file_name());
            match name.to_str() {
                Some(name) if check_name(name).is_ok() => drop(names.insert(name.to_owned())),
                _ if quiet => {}
                _ if name.as_encoded_bytes().starts_with(b".") => self.found(
                    Severity::Leftover,
                    Whose::default(),
                    &path,
                    "a crash left it half-made or half-removed",
                    "nothing needs to be done: the next start removes it",
                ),
                _ => self.found(
                    Severity::Note,
                    Whose::default(),
                    &path,
                    "this is neither a tenant's nor a snapshot's name",
                    "move it away if you don't know it",
                ),
            }
        }
        names
    }

    /// Snapshots whose tenant is gone.
    fn orphans(&mut self, owner: &str) {
        let path = self.path.join("snapshots").join(owner);
        self.states_known = false;
        let entries = fs::read_dir(self.path.join("tenants"))
            .into_iter()
            .flatten();
        let removing = entries
            .flatten()
            .any(|entry| removed_name(&entry.path()) == Some(owner));
        self.found(
            Severity::Leftover,
            (Some(owner), None),
            &path,
            "snapshots of a tenant that is gone",
            match removing {
                true => "nothing needs to be done: the next start removes them, as it does the tenant",
                false => "`lazaret remove` with the tenant's name removes them, unless you still want what is in them",
            },
        );
    }

    /// Checks one image and what its state names. Whose it is, if it says.
    fn image(&mut self, tenant: &str, tag: Option<&str>) -> Result<Option<TenantId>, CheckError> {
        let (directory, whose) = (self.directory(tenant, tag), (Some(tenant), tag));
        let tell = &mut *self.tell;
        let checked = check(&directory, self.depth, &mut |event| match event {
            CheckEvent::Verified { bytes } => tell(FsckEvent::Verified { bytes }),
            CheckEvent::Finding(finding) => {
                if !is_own_log(&finding, tag) {
                    tell(FsckEvent::Finding(of_image(finding, whose)));
                }
            }
        })?;
        let Some(newest) = checked.newest else {
            self.states_known = false;
            return Ok(checked.tenant);
        };
        match Meta::from_bytes(&newest.meta) {
            Ok(meta) => {
                let path = self.module(&meta.module);
                if let Some((problem, remedy)) = self.look_at(meta.module) {
                    self.damage(whose, &path, problem, remedy);
                }
            }
            Err(error) => {
                self.states_known = false;
                self.damage(
                    whose,
                    &directory,
                    format!("the state of version {} makes no sense: {error}", newest.version),
                    "use the release of Lazaret that wrote it, or restore the directory from a backup or a snapshot",
                );
            }
        }
        Ok(checked.tenant)
    }

    /// What is wrong with a module. Each is read once.
    fn look_at(&mut self, hash: [u8; 32]) -> Option<(String, &'static str)> {
        let path = self.module(&hash);
        let found = self.modules.entry(hash).or_insert_with(|| {
            let mut hasher = blake3::Hasher::new();
            let read = File::open(&path).and_then(|file| hasher.update_reader(file).map(drop));
            match read {
                Ok(()) if *hasher.finalize().as_bytes() == hash => None,
                Ok(()) => Some((
                    "the module does not have the hash that is its name".into(),
                    "put the module back: it is the one that was installed",
                )),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Some((
                    "the module is missing".into(),
                    "put the module back: it is the one that was installed",
                )),
                Err(error) => Some((
                    format!("the module can't be read: {error}"),
                    "check its permissions, and the disk",
                )),
            }
        });
        found.clone()
    }

    /// A snapshot is its tenant's, or can't be restored.
    fn same_tenant(
        &mut self,
        tenant: &str,
        tag: &str,
        owner: Option<TenantId>,
        found: Option<TenantId>,
    ) {
        if let (Some(owner), Some(found)) = (owner, found)
            && owner != found
        {
            let path = self.directory(tenant, Some(tag));
            self.damage(
                (Some(tenant), Some(tag)),
                &path,
                format!(
                    "it is a snapshot of tenant {found}, not of {owner}, and can't be restored"
                ),
                "fork it if you want what is in it, then delete it",
            );
        }
    }

    /// Modules that nobody has.
    fn unused_modules(&mut self) {
        let directory = self.path.join("modules");
        let mut paths: Vec<PathBuf> = match fs::read_dir(&directory) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            // Whoever needs one has been told of it.
            Err(_) => return,
        };
        paths.sort();
        let used: BTreeSet<PathBuf> = self.modules.keys().map(|hash| self.module(hash)).collect();
        for path in paths {
            let is_module = path
                .extension()
                .is_some_and(|extension| extension == "wasm");
            if !is_module {
                self.found(
                    Severity::Leftover,
                    Whose::default(),
                    &path,
                    "this is not a module: a crash left it, or somebody put it there",
                    "it may be removed",
                );
            } else if self.states_known && !used.contains(&path) {
                self.found(
                    Severity::Leftover,
                    Whose::default(),
                    &path,
                    "no tenant and no snapshot has this module",
                    "it may be removed",
                );
            }
        }
    }
}

/// A tenant's log lies beside its image, and is none of the image's.
fn is_own_log(finding: &Finding, tag: Option<&str>) -> bool {
    let name = finding.path.file_name().and_then(|name| name.to_str());
    tag.is_none() && matches!(finding.problem, Problem::Foreign) && name.is_some_and(is_log)
}

fn of_image(finding: Finding, (tenant, snapshot): Whose<'_>) -> FsckFinding {
    let page = |page: PageId| page.page();
    FsckFinding {
        severity: finding.severity(),
        tenant: tenant.map(str::to_owned),
        snapshot: snapshot.map(str::to_owned),
        offset: finding.offset,
        region: finding.pages.map(|(first, _)| first.region().to_string()),
        first_page: finding.pages.map(|(first, _)| page(first)),
        last_page: finding.pages.map(|(_, last)| page(last)),
        problem: finding.problem.to_string(),
        remedy: finding.problem.remedy().to_owned(),
        path: finding.path,
    }
}

/// Bytes of the shards and logs in a directory.
fn file_bytes(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let path = entry.path();
            let extension = path.extension();
            extension.is_some_and(|extension| extension == "shard" || extension == "log")
        })
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
