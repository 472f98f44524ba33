//! Export and import: a tenant in one file.

use std::fs;
use std::io::{Read, Write};

use lazaret_image::{
    ArchiveLimits, ArchiveReader, Exported, ImportError, MAX_META, TenantId, View,
};
use lazaret_wire::codec::Message;
use lazaret_wire::layout::PAGE;

use super::disk::Disk;
use super::error::TenantError;
use super::lifecycle::{load, store_module, stored_module};
use super::meta::Meta;
use super::snapshot::check_free;
use super::{Shared, snapshot};
use crate::aside;
use crate::budget::{Budget, Reservation};
use crate::data_dir::DataDir;
use crate::host::Inner;
use crate::module::MAX_MODULE;

/// Bytes of a WebAssembly page, in which memories grow.
const WASM_PAGE: u64 = 65_536;

/// How far an export or import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Pages done.
    pub pages: u64,
    /// Pages that there are.
    pub total: u64,
}

/// Writes the newest version as an archive.
pub(crate) fn export(
    data: &DataDir,
    tenant: &Shared,
    to: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exported, TenantError> {
    let (id, view) = {
        let lane = tenant.lane();
        lane.check_removed(&tenant.name)
            .map_err(TenantError::call("export"))?;
        (lane.image.tenant(), lane.image.view())
    };
    let meta = Meta::from_bytes(view.meta()).map_err(|source| TenantError::State {
        name: tenant.name.clone(),
        source,
    })?;
    write(data, id, &view, &meta, to, progress)
}

/// Writes a snapshot as an archive.
pub(crate) fn export_snapshot(
    data: &DataDir,
    name: &str,
    tag: &str,
    to: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exported, TenantError> {
    let (id, view, meta) = {
        let (image, meta) = snapshot::open(data, name, tag)?;
        (image.tenant(), image.view(), meta)
    };
    write(data, id, &view, &meta, to, progress)
}

fn write(
    data: &DataDir,
    id: TenantId,
    view: &View,
    meta: &Meta,
    to: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exported, TenantError> {
    let module = stored_module(data, &meta.module)?;
    let total = view.stored_pages();
    let exported = lazaret_image::export(view, id, &module, to, &mut |pages| {
        progress(Progress { pages, total });
    })?;
    Ok(exported)
}

/// Makes the directory of a new tenant of an archive. It is there whole or not
/// at all.
pub(crate) fn import(
    host: &Inner,
    data: &DataDir,
    name: &str,
    from: &mut dyn Read,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), TenantError> {
    let target = check_free(data, name)?;
    let limits = ArchiveLimits {
        heap: host.options.limits.heap,
        stable: host.options.limits.stable,
        pages: u64::MAX,
        meta: MAX_META as u64,
        module: MAX_MODULE as u64,
    };
    let mut archive = ArchiveReader::open(from, &limits).map_err(ImportError::from)?;
    let wrong = |reason: String| TenantError::Archive { reason };
    let header = archive.header();
    let (total, sizes, hash) = (header.pages, header.sizes, header.module_hash);
    let meta = Meta::from_bytes(archive.meta())
        .map_err(|error| wrong(format!("its state is of another version: {error}")))?;
    if meta.module != hash {
        return Err(wrong("its state is of another module".into()));
    }
    for (region, size) in [("heap", sizes.heap), ("stable memory", sizes.stable)] {
        if !size.is_multiple_of(WASM_PAGE) {
            return Err(wrong(format!(
                "the size of its {region} is {size} bytes, not a multiple of {WASM_PAGE}"
            )));
        }
    }
    let wasm = archive.take_module();
    let module = load(host, &wasm)?;
    // Made aside, and renamed once it is complete. What a crash leaves there is
    // swept when the directory is next opened.
    let aside = data.tenants().join(format!(".new-{name}"));
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(TenantError::file(&aside))?;
    }
    let disk = Disk::new(
        host.options.limits.disk,
        target.clone(),
        data.snapshots(name),
    );
    disk.check_new(total.saturating_mul(PAGE as u64))?;
    let account = host.budget.as_ref().map(Budget::open);
    let bytes = sizes.heap.saturating_add(sizes.stable);
    let mut growth = match &account {
        Some(account) => account.reserve(bytes)?,
        None => Reservation::default(),
    };
    let image = archive.into_image(&aside, &mut |pages| progress(Progress { pages, total }))?;
    if let Err(over) = disk.check(&image, 0) {
        drop(image);
        let _ = fs::remove_dir_all(&aside);
        return Err(over.into());
    }
    drop(image);
    let named = store_module(data, &module, &wasm).and_then(|()| {
        fs::rename(&aside, &target).map_err(TenantError::file(&target))?;
        aside::sync_directory(&data.tenants()).map_err(TenantError::file(data.tenants()))
    });
    named.inspect_err(|_| {
        // Not there any more if only the last sync failed.
        let _ = fs::remove_dir_all(&aside);
    })?;
    growth.settle(bytes);
    drop(growth);
    if let (Some(budget), Some(account)) = (&host.budget, account) {
        budget.enter(name, account);
    }
    Ok(())
}
