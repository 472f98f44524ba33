//! The hash of a tenant's state: what replicas and replays compare.

use std::sync::{MutexGuard, PoisonError};

use lazaret_image::{StateHasher, Verify};
use lazaret_wire::codec::Message;

use super::error::TenantError;
use super::meta::Meta;
use super::{Shared, Tenant};

/// Pages from which on it is worth saving that they are hashed: 16 MiB take some
/// milliseconds to hash.
const WORTH_SAVING: u64 = 4096;
/// And this part of the state, so that saving, which writes a hash for each of
/// its pages, costs a fraction of what was hashed since.
const PART_WORTH_SAVING: u64 = 8;

/// The hash of a state, and which version it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateHash {
    /// The version of the tenant's memory, as in [`TenantInfo`](super::TenantInfo).
    pub version: u64,
    /// The hash, blake3.
    pub hash: [u8; 32],
}

/// What a tenant knows of its pages' hashes.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    hasher: Option<StateHasher>,
    /// Pages that were hashed since the hashes were saved.
    unsaved: u64,
}

impl Tenant {
    /// The hash of the newest committed version: of heap, stable memory, their
    /// sizes, globals, certified data, timer, cycles, `ic0.canister_version`,
    /// the module's hash and the contract.
    ///
    /// Equal states have equal hashes on every machine, whatever their history,
    /// the tracker or the layout on disk; forks have their origin's until one
    /// of them changes. The specification is in the image crate's
    /// `docs/format.md`; what else than memory belongs to the state is hashed
    /// in the encoding in which it is committed.
    ///
    /// It costs the pages written since the last call, and calls of the tenant
    /// go on meanwhile. The first call of a process hashes everything that was
    /// written since the hashes were last saved beside the tenant's memory,
    /// after the update that is running, if any.
    ///
    /// # Errors
    ///
    /// If a page is damaged or can't be read, or the state is of another
    /// release.
    pub fn state_hash(&self) -> Result<StateHash, TenantError> {
        self.shared.state_hash()
    }
}

impl Shared {
    fn hashing(&self) -> MutexGuard<'_, Hashing> {
        self.hashing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_hash(&self) -> Result<StateHash, TenantError> {
        let mut hashing = self.hashing();
        let Hashing { hasher, unsaved } = &mut *hashing;
        let hasher = match hasher {
            Some(hasher) => hasher,
            None => {
                let lane = self.lane();
                lane.check_removed(&self.name)
                    .map_err(TenantError::call("state hash"))?;
                hasher.insert(lane.image.state_hasher())
            }
        };
        // A page that rotted must not become a hash that somebody compares.
        let hashed = hasher.update(&self.reader, Verify::Yes)?;
        *unsaved += hashed.pages;
        let state = state(hashed.view.meta()).map_err(|source| TenantError::State {
            name: self.name.clone(),
            source,
        })?;
        let hash = StateHash {
            version: hashed.view.version().0,
            hash: hashed.roots.state_hash(&state),
        };
        let part = hashed.view.stored_pages() / PART_WORTH_SAVING;
        // Views hold on to the space of files.
        drop(hashed);
        if *unsaved >= part.max(WORTH_SAVING) && self.save(hasher) {
            *unsaved = 0;
        }
        Ok(hash)
    }

    /// Saves the hashes, unless an update is running: another time will do.
    fn save(&self, hasher: &StateHasher) -> bool {
        let Some(mut lane) = self.idle_lane() else {
            return false;
        };
        if lane.removed {
            return false;
        }
        // A hash of 32 bytes a page, in blocks of some of them.
        let most = lane.image.stored_pages().saturating_mul(64);
        if let Err(over) = self.disk.check(&lane.image, most) {
            tracing::debug!(tenant = self.name, %over, "the hashes of pages were not saved");
            return false;
        }
        match lane.image.save_hashes(hasher) {
            Ok(saved) => {
                self.disk.apply(&mut lane.image);
                saved
            }
            Err(error) => {
                // The hash is right all the same.
                tracing::warn!(tenant = self.name, %error, "the hashes of pages were not saved");
                false
            }
        }
    }
}

/// What belongs to a state besides its pages, in the bytes that are hashed: the
/// current encoding, whatever release wrote `meta`.
fn state(meta: &[u8]) -> Result<Vec<u8>, lazaret_wire::DecodeError> {
    let mut bytes = Vec::with_capacity(meta.len());
    // What was decoded is within the limits of the encoding.
    let _ = Meta::from_bytes(meta)?.to_bytes(&mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use lazaret_wire::message::Global;

    use super::*;

    /// If this fails, state hashes have changed: say so in the change log.
    #[test]
    fn the_hashed_bytes_are_what_they_were() {
        let meta = Meta {
            module: [3; 32],
            version: 9,
            cycles: 10,
            certified_data: vec![1, 2],
            global_timer: 5,
            globals: vec![Global::I32(1), Global::F64(2)],
            contract: "m1".into(),
        };
        let mut expected = vec![1];
        expected.extend([3; 32]);
        expected.extend(9u64.to_le_bytes());
        expected.extend(10u128.to_le_bytes());
        expected.extend([2, 0, 0, 0, 1, 2]);
        expected.extend(5u64.to_le_bytes());
        expected.extend([2, 0, 0, 0]);
        expected.extend([0, 1, 0, 0, 0]);
        expected.extend([3, 2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([2, 0, 0, 0, b'm', b'1']);
        let encoded = meta.encoded().unwrap();
        assert_eq!(state(&encoded).unwrap(), expected);
        assert!(state(&encoded[1..]).is_err());
    }
}
