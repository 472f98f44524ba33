//! Which tenants of a host are open, and which names are taken meanwhile.
//!
//! The list is locked for as long as it takes to look something up. Whoever
//! opens a tenant that exists keeps those waiting who want the same one, and
//! nobody else; whoever installs or removes a tenant reserves its name first.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tenant::{self, TenantError, WeakTenant};

/// An open tenant, as all its handles have it.
pub(crate) type Shared = Arc<tenant::Shared>;

/// What is being done under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A tenant is being installed.
    Install,
    /// The tenant is being removed.
    Remove,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Install => "installed",
            Self::Remove => "removed",
        })
    }
}

#[derive(Debug)]
enum Slot {
    Open(WeakTenant),
    /// Somebody is opening it, and has this locked until that is done.
    Opening(Arc<Mutex<()>>),
    Reserved(Change),
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    slots: Mutex<HashMap<String, Slot>>,
}

/// A name that nobody else can use until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    /// Nothing once it is fulfilled.
    registry: Option<&'a Registry>,
    name: &'a str,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list, once nobody is opening the tenant with this name.
    fn settled(&self, name: &str) -> MutexGuard<'_, HashMap<String, Slot>> {
        loop {
            let slots = self.lock();
            let Some(Slot::Opening(gate)) = slots.get(name) else {
                return slots;
            };
            let gate = gate.clone();
            drop(slots);
            drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Reserves the name of a tenant that is to be installed.
    pub(crate) fn install<'a>(&'a self, name: &'a str) -> Result<Reservation<'a>, TenantError> {
        let mut slots = self.settled(name);
        match slots.get(name) {
            Some(Slot::Reserved(change)) => return Err(busy(name, *change)),
            Some(Slot::Open(tenant)) if tenant.strong_count() > 0 => {
                return Err(TenantError::Exists(name.to_owned()));
            }
            Some(Slot::Open(_) | Slot::Opening(_)) | None => {}
        }
        slots.insert(name.to_owned(), Slot::Reserved(Change::Install));
        Ok(Reservation {
            registry: Some(self),
            name,
        })
    }

    /// Reserves the name of a tenant that is to be removed; also the tenant,
    /// if it is open.
    pub(crate) fn remove<'a>(
        &'a self,
        name: &'a str,
    ) -> Result<(Reservation<'a>, Option<Shared>), TenantError> {
        let mut slots = self.settled(name);
        let open = match slots.get(name) {
            Some(Slot::Reserved(change)) => return Err(busy(name, *change)),
            Some(Slot::Open(tenant)) => tenant.upgrade(),
            Some(Slot::Opening(_)) | None => None,
        };
        slots.insert(name.to_owned(), Slot::Reserved(Change::Remove));
        let reservation = Reservation {
            registry: Some(self),
            name,
        };
        Ok((reservation, open))
    }

    /// All tenants that are open.
    pub(crate) fn open(&self) -> Vec<Shared> {
        let slots = self.lock();
        let open = slots.values().filter_map(|slot| match slot {
            Slot::Open(tenant) => tenant.upgrade(),
            Slot::Opening(_) | Slot::Reserved(_) => None,
        });
        open.collect()
    }

    /// The tenant with this name, if it is open.
    pub(crate) fn open_now(&self, name: &str) -> Option<Shared> {
        match self.settled(name).get(name)? {
            Slot::Open(tenant) => tenant.upgrade(),
            Slot::Opening(_) | Slot::Reserved(_) => None,
        }
    }

    /// The tenant with this name, opened by `open` if it isn't. Two that ask at
    /// once get the same: an image has one owner.
    pub(crate) fn get(
        &self,
        name: &str,
        open: impl FnOnce() -> Result<Shared, TenantError>,
    ) -> Result<Shared, TenantError> {
        let mut slots = self.settled(name);
        match slots.get(name) {
            Some(Slot::Reserved(change)) => return Err(busy(name, *change)),
            Some(Slot::Open(tenant)) => {
                if let Some(tenant) = tenant.upgrade() {
                    return Ok(tenant);
                }
            }
            Some(Slot::Opening(_)) | None => {}
        }
        let gate = Arc::new(Mutex::new(()));
        // Locked before anybody can find it.
        let _closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        slots.insert(name.to_owned(), Slot::Opening(gate.clone()));
        drop(slots);
        let opening = Opening {
            registry: self,
            name,
        };
        let tenant = open()?;
        opening.done(&tenant);
        Ok(tenant)
    }
}

/// That a tenant is being opened, until this is dropped.
struct Opening<'a> {
    registry: &'a Registry,
    name: &'a str,
}

impl Opening<'_> {
    fn done(self, tenant: &Shared) {
        let open = Slot::Open(Arc::downgrade(tenant));
        self.registry.lock().insert(self.name.to_owned(), open);
    }
}

/// There is none, if the attempt failed.
impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut slots = self.registry.lock();
        if let Some(Slot::Opening(_)) = slots.get(self.name) {
            slots.remove(self.name);
        }
    }
}

fn busy(name: &str, change: Change) -> TenantError {
    TenantError::Busy {
        name: name.to_owned(),
        change,
    }
}

impl Reservation<'_> {
    /// From now on the name is this tenant's.
    pub(crate) fn fulfil(mut self, tenant: WeakTenant) {
        // Nothing is left to release: once the list is unlocked, the name may be
        // reserved anew, by somebody who removes the tenant.
        if let Some(registry) = self.registry.take() {
            registry
                .lock()
                .insert(self.name.to_owned(), Slot::Open(tenant));
        }
    }
}

/// Releases the name, whatever became of the attempt.
impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(registry) = self.registry {
            registry.lock().remove(self.name);
        }
    }
}
