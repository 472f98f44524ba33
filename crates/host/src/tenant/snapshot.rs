//! Snapshots and forks: other directories that share a tenant's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lazaret_image::{Accept, Image};
use lazaret_wire::codec::Message;

use super::disk::Disk;
use super::error::TenantError;
use super::lane::Lane;
use super::lifecycle::{check_exists, open_image, read_module, stored_module};
use super::meta::Meta;
use super::{Shared, check_name, hex, memory_sizes};
use crate::aside;
use crate::budget::{Budget, Reservation, total};
use crate::data_dir::{self, DataDir};
use crate::host::Inner;

/// A snapshot of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SnapshotInfo {
    /// Its tag.
    pub tag: String,
    /// The version of the tenant's memory that it is.
    pub version: u64,
    /// Nanoseconds since 1970-01-01.
    pub time: u64,
    /// Hash of the module then (blake3), in hex.
    pub module: String,
    /// Bytes of heap.
    pub heap_bytes: u64,
    /// Bytes of stable memory.
    pub stable_bytes: u64,
}

/// A snapshot that can't be read.
#[derive(Debug)]
pub struct DamagedSnapshot {
    /// Its tag.
    pub tag: String,
    /// What is wrong with it.
    pub error: TenantError,
}

/// Whether a snapshot can have this tag: it becomes a file name.
pub fn check_tag(tag: &str) -> Result<(), TenantError> {
    data_dir::check_name(tag).map_err(|reason| TenantError::Tag {
        tag: tag.to_owned(),
        reason,
    })
}

/// The directory of a snapshot, if there is one, and its tenant.
fn find(data: &DataDir, name: &str, tag: &str) -> Result<PathBuf, TenantError> {
    check_tag(tag)?;
    check_exists(data, name)?;
    let path = data.snapshots(name).join(tag);
    match path.is_dir() {
        true => Ok(path),
        false => Err(TenantError::NoSnapshot {
            name: name.to_owned(),
            tag: tag.to_owned(),
            known: tags(data, name)?,
        }),
    }
}

/// The tags of a tenant's snapshots, sorted.
pub(super) fn tags(data: &DataDir, name: &str) -> Result<Vec<String>, TenantError> {
    let directory = data.snapshots(name);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TenantError::file(directory)(error)),
    };
    let mut tags: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|tag| check_tag(tag).is_ok())
        .collect();
    tags.sort();
    Ok(tags)
}

/// Makes a snapshot of the newest version.
pub(crate) fn create(
    data: &DataDir,
    tenant: &Shared,
    tag: &str,
) -> Result<SnapshotInfo, TenantError> {
    // Or somebody's own would go with old ones of those.
    if super::replay::is_tag(tag) {
        return Err(TenantError::Tag {
            tag: tag.to_owned(),
            reason: "tags that begin with incident-v are those of states that incidents happened on",
        });
    }
    create_in(data, tenant, &mut tenant.lane(), tag)
}

/// The same for who has the lane.
pub(super) fn create_in(
    data: &DataDir,
    tenant: &Shared,
    lane: &mut Lane,
    tag: &str,
) -> Result<SnapshotInfo, TenantError> {
    check_tag(tag)?;
    let directory = data.snapshots(&tenant.name);
    let path = directory.join(tag);
    lane.check_removed(&tenant.name)
        .map_err(TenantError::call("snapshot"))?;
    if path.exists() {
        return Err(TenantError::SnapshotExists {
            name: tenant.name.clone(),
            tag: tag.to_owned(),
        });
    }
    if !directory.is_dir() {
        fs::create_dir_all(&directory).map_err(TenantError::file(&directory))?;
        for made in [&directory, &data.path().join("snapshots"), data.path()] {
            aside::sync_directory(made).map_err(TenantError::file(made))?;
        }
    }
    tenant.disk.check(&lane.image, 0)?;
    lane.image.snapshot(&path)?;
    // It holds little of its own, unless files had to be copied.
    let within = tenant.disk.check(&lane.image, 0);
    if let Err(over) = within {
        remove(&path)?;
        return Err(over.into());
    }
    tenant.disk.apply(&mut lane.image);
    // Known here already; opening the snapshot takes the time of its size.
    describe(&lane.image, &lane.meta, &path, tag)
}

/// What is known of all snapshots of a tenant, by tag; for those that can't be
/// opened, why.
pub(crate) fn list(
    data: &DataDir,
    name: &str,
) -> Result<Vec<Result<SnapshotInfo, DamagedSnapshot>>, TenantError> {
    check_exists(data, name)?;
    let directory = data.snapshots(name);
    let infos = tags(data, name)?.into_iter().map(|tag| {
        info(&directory.join(&tag), &tag).map_err(|error| DamagedSnapshot { tag, error })
    });
    Ok(infos.collect())
}

fn info(path: &Path, tag: &str) -> Result<SnapshotInfo, TenantError> {
    let (image, _) = open_image(path)?;
    let meta = meta(&image, tag)?;
    describe(&image, &meta, path, tag)
}

/// What there is to say of the snapshot at `path`, which is what `image` is.
fn describe(
    image: &Image,
    meta: &Meta,
    path: &Path,
    tag: &str,
) -> Result<SnapshotInfo, TenantError> {
    let time = fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(TenantError::file(path))?;
    Ok(SnapshotInfo {
        tag: tag.to_owned(),
        version: image.version().0,
        time: time
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos() as u64),
        module: hex(&meta.module),
        heap_bytes: image.sizes().heap,
        stable_bytes: image.sizes().stable,
    })
}

fn meta(image: &Image, name: &str) -> Result<Meta, TenantError> {
    Meta::from_bytes(image.meta()).map_err(|source| TenantError::State {
        name: name.to_owned(),
        source,
    })
}

/// Makes a snapshot's state, with its module, the tenant's next version.
pub(crate) fn restore(
    host: &Inner,
    data: &DataDir,
    tenant: &Shared,
    tag: &str,
) -> Result<(), TenantError> {
    let path = find(data, &tenant.name, tag)?;
    let mut lane = tenant.lane();
    lane.check_removed(&tenant.name)
        .map_err(TenantError::call("restore"))?;
    // All that can fail for the module's sake comes first.
    let (kept, sizes) = {
        let (image, _) = open_image(&path)?;
        (meta(&image, tag)?, memory_sizes(&image))
    };
    let module = Arc::new(read_module(host, data, &kept.module)?);
    let mut growth = tenant.reserve(sizes)?;
    // `ic0.canister_version` only rises.
    let meta = Meta {
        version: lane.meta.version.max(kept.version).saturating_add(1),
        ..kept
    };
    let bytes = meta.encoded().map_err(TenantError::call("restore"))?;
    // Nobody takes the new version for one of the module before.
    let mut running = tenant.module_mut();
    lane.image
        .restore_as(&path, Accept::SameTenant, Some(&bytes))?;
    growth.settle(total(sizes));
    tenant.disk.apply(&mut lane.image);
    lane.meta = Arc::new(meta);
    *running = module;
    tenant.workers.retire();
    Ok(())
}

/// Removes a snapshot. If its tenant is open, it has that much more room.
pub(crate) fn delete(
    data: &DataDir,
    name: &str,
    tag: &str,
    open: Option<&Shared>,
) -> Result<(), TenantError> {
    let path = find(data, name, tag)?;
    remove(&path)?;
    if let Some(tenant) = open
        && tenant.disk.quota().is_some()
    {
        tenant.disk.apply(&mut tenant.lane().image);
    }
    Ok(())
}

/// Removes all snapshots of a tenant. Whether there were any.
pub(super) fn delete_all(data: &DataDir, name: &str) -> Result<bool, TenantError> {
    let directory = data.snapshots(name);
    let there = directory.is_dir();
    if there {
        remove(&directory)?;
    }
    Ok(there)
}

/// Removes a directory so that it is there whole or not at all.
fn remove(path: &Path) -> Result<(), TenantError> {
    data_dir::remove_whole(path).map_err(TenantError::file(path))
}

/// An error if a tenant can't get this name: somebody has it, or somebody had
/// it whose snapshots are still there, which must not become the new one's.
pub(super) fn check_free(data: &DataDir, name: &str) -> Result<PathBuf, TenantError> {
    check_name(name)?;
    let target = data.tenants().join(name);
    if target.exists() {
        return Err(TenantError::Exists(name.to_owned()));
    }
    match tags(data, name)?.is_empty() {
        true => Ok(target),
        false => Err(TenantError::SnapshotsLeft {
            name: name.to_owned(),
            path: data.snapshots(name),
        }),
    }
}

/// Makes the directory of a new tenant, whose state is that of `tenant`.
pub(crate) fn fork(
    host: &Inner,
    data: &DataDir,
    tenant: &Shared,
    new: &str,
) -> Result<(), TenantError> {
    let target = check_free(data, new)?;
    let mut lane = tenant.lane();
    lane.check_removed(&tenant.name)
        .map_err(TenantError::call("fork"))?;
    stored_module(data, &lane.meta.module)?;
    fork_image(host, data, &mut lane.image, new, &target)
}

/// Makes the directory of a new tenant, whose state is that of a snapshot. What
/// the snapshot's tenant is by now, and whether it can be opened, doesn't matter.
pub(crate) fn fork_snapshot(
    host: &Inner,
    data: &DataDir,
    name: &str,
    tag: &str,
    new: &str,
) -> Result<(), TenantError> {
    let target = check_free(data, new)?;
    let (mut image, meta) = open(data, name, tag)?;
    stored_module(data, &meta.module)?;
    fork_image(host, data, &mut image, new, &target)
}

/// Forks within the node's budget and the new tenant's quota: it pays for all of
/// its files.
fn fork_image(
    host: &Inner,
    data: &DataDir,
    image: &mut Image,
    new: &str,
    target: &Path,
) -> Result<(), TenantError> {
    let bytes = total(memory_sizes(image));
    let account = host.budget.as_ref().map(Budget::open);
    let mut growth = match &account {
        Some(account) => account.reserve(bytes)?,
        None => Reservation::default(),
    };
    let quota = host.options.limits.disk;
    Disk::new(quota, target.to_owned(), data.snapshots(new)).check(image, 0)?;
    image.fork(target)?;
    growth.settle(bytes);
    drop(growth);
    if let (Some(budget), Some(account)) = (&host.budget, account) {
        budget.enter(new, account);
    }
    Ok(())
}

/// Opens a snapshot.
pub(super) fn open(data: &DataDir, name: &str, tag: &str) -> Result<(Image, Meta), TenantError> {
    let path = find(data, name, tag)?;
    let (image, _) = open_image(&path)?;
    let meta = meta(&image, tag)?;
    Ok((image, meta))
}
