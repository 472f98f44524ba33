//! Snapshots and forks: other directories that share a tenant's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lazaret_image::{Accept, Image};
use lazaret_wire::codec::Message;

use super::disk::Disk;
use super::error::TenantError;
use super::lifecycle::{open_image, read_module};
use super::meta::Meta;
use super::{Shared, check_name, hex, memory_sizes};
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

/// The directory of a snapshot, if there is one.
fn find(data: &DataDir, name: &str, tag: &str) -> Result<PathBuf, TenantError> {
    check_tag(tag)?;
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
fn tags(data: &DataDir, name: &str) -> Result<Vec<String>, TenantError> {
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
    check_tag(tag)?;
    let directory = data.snapshots(&tenant.name);
    let path = directory.join(tag);
    let mut lane = tenant.lane();
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
            data_dir::sync_directory(made).map_err(TenantError::file(made))?;
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
    let before = lane.meta.version;
    // Nobody takes the new version for one of the module before.
    let mut running = tenant.module_mut();
    lane.image.restore(&path, Accept::SameTenant)?;
    growth.settle(total(sizes));
    tenant.disk.apply(&mut lane.image);
    *running = module;
    tenant.workers.retire();
    drop(running);
    // `ic0.canister_version` only rises.
    let meta = Meta {
        version: before.max(kept.version).saturating_add(1),
        ..kept
    };
    lane.meta = Arc::new(meta.clone());
    // The state is restored, and on disk, whatever becomes of this: the next
    // commit makes up for it.
    if let Err(error) = lane.state_changed(host, meta) {
        tracing::warn!(tenant = tenant.name, %error, "the restored tenant's version was not raised on disk");
    }
    Ok(())
}

/// Removes a snapshot.
pub(crate) fn delete(data: &DataDir, tenant: &Shared, tag: &str) -> Result<(), TenantError> {
    let path = find(data, &tenant.name, tag)?;
    remove(&path)?;
    if tenant.disk.quota().is_some() {
        tenant.disk.apply(&mut tenant.lane().image);
    }
    Ok(())
}

/// Removes all snapshots of a tenant.
pub(super) fn delete_all(data: &DataDir, name: &str) -> Result<(), TenantError> {
    let directory = data.snapshots(name);
    match directory.is_dir() {
        true => remove(&directory),
        false => Ok(()),
    }
}

/// Removes a directory so that it is there whole or not at all.
fn remove(path: &Path) -> Result<(), TenantError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = parent.join(format!(".removed-{name}-{}", std::process::id()));
    fs::rename(path, &aside).map_err(TenantError::file(path))?;
    data_dir::sync_directory(parent).map_err(TenantError::file(parent))?;
    fs::remove_dir_all(&aside).map_err(TenantError::file(aside))
}

/// Makes the directory of a new tenant, whose state is that of `tenant` or of
/// one of its snapshots.
pub(crate) fn fork(
    host: &Inner,
    data: &DataDir,
    tenant: &Shared,
    new: &str,
    from: Option<&str>,
) -> Result<(), TenantError> {
    check_name(new)?;
    let target = data.tenants().join(new);
    if target.exists() {
        return Err(TenantError::Exists(new.to_owned()));
    }
    let account = host.budget.as_ref().map(Budget::open);
    let fork = |image: &mut Image| {
        let bytes = total(memory_sizes(image));
        let mut growth = match &account {
            Some(account) => account.reserve(bytes)?,
            None => Reservation::default(),
        };
        // The fork pays for all of its files.
        Disk::new(
            host.options.limits.disk,
            target.clone(),
            data.snapshots(new),
        )
        .check(image, 0)?;
        image.fork(&target)?;
        growth.settle(bytes);
        Ok::<_, TenantError>(())
    };
    match from {
        Some(tag) => {
            let path = find(data, &tenant.name, tag)?;
            let (mut image, _) = open_image(&path)?;
            fork(&mut image)?;
        }
        None => {
            let mut lane = tenant.lane();
            lane.check_removed(&tenant.name)
                .map_err(TenantError::call("fork"))?;
            fork(&mut lane.image)?;
        }
    }
    if let (Some(budget), Some(account)) = (&host.budget, account) {
        budget.enter(new, account);
    }
    Ok(())
}
