//! Snapshots and forks: once made, nothing changes them.

use std::path::{Path, PathBuf};

use lazaret_image::{Image, Severity, TenantId};

use super::check_sound;
use crate::fault_storage::FaultStorage;
use crate::model::State;

/// A snapshot or fork that was asked for.
#[derive(Clone)]
pub struct Branch {
    pub path: PathBuf,
    pub state: State,
    pub tenant: Option<TenantId>,
    /// It was returned: nothing may touch it any more.
    pub sure: bool,
}

/// Every one that was returned is there and whole; one that wasn't is whole or isn't there.
pub fn check_branches(storage: &FaultStorage, branches: &[Branch], context: &str) {
    for branch in branches {
        let context = format!("{context}, {}", branch.path.display());
        let Some(there) = storage.at(&branch.path) else {
            assert!(!branch.sure, "{context}: it is gone");
            continue;
        };
        check_sound(&there, Severity::Note, &context);
        let (image, recovery) =
            Image::open_on(there).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(recovery.cut.is_none(), "{context}");
        if let Some(tenant) = branch.tenant {
            assert_eq!(image.tenant(), tenant, "{context}");
        }
        branch.state.check(&image, &context);
    }
    let left = |path: &Path| path.to_str().unwrap().ends_with(".new");
    let known = |path: &PathBuf| {
        path == Path::new("/image")
            || left(path)
            || branches.iter().any(|branch| branch.path == *path)
    };
    assert!(storage.paths().iter().all(known), "{context}");
}
