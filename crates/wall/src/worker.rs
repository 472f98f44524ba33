//! A worker locks itself, in two steps.
//!
//! The launcher has already put it into namespaces with limits, and executed
//! it with an empty environment and one socket. What it does itself can only
//! narrow what it has; the host checks all of it from outside before any guest
//! code runs.

use std::os::fd::OwnedFd;

use crate::layer::{Layer, LayerError};
use crate::layers::landlock::Granted;
use crate::layers::seccomp::Denied;
use crate::layers::{
    capabilities, dumpable, landlock, mdwe, namespaces, no_new_privs, root, seccomp,
};
use crate::off::Off;
use crate::policy::{Kind, policy};

/// `argv[0]` of a worker.
pub const ARGV0: &std::ffi::CStr = c"lazaret:worker";

/// `argv[0]` of a worker of the red team: one that attacks. Only a host that was
/// built for that has its launcher use it.
pub const RED_TEAM: &std::ffi::CStr = c"lazaret:red-team";

/// Layers that could not be put on and whose absence was accepted.
pub type Missing = Vec<Layer>;

/// What the host says about layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orders<'a> {
    /// Those whose absence the operator has accepted.
    pub accepted: &'a [Layer],
    /// Those that are left out on purpose.
    pub off: Off,
    /// Whether the worker stays open to processes of its own user: where both
    /// have the same id and no user namespace lies between them, the host could
    /// not look at it otherwise (ptrace(2), access mode checking).
    pub dumpable: bool,
}

struct Putting<'a> {
    accepted: &'a [Layer],
    off: Off,
    missing: Missing,
}

impl Putting<'_> {
    fn on(
        &mut self,
        layer: Layer,
        apply: impl FnOnce() -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        if self.off.has(layer) {
            return Ok(());
        }
        match apply() {
            Ok(()) => Ok(()),
            Err(_) if self.accepted.contains(&layer) => {
                self.missing.push(layer);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// What step one leaves for step two.
#[derive(Debug)]
pub struct Closed {
    /// Layers that could not be put on.
    pub missing: Missing,
    /// The launch filter's listener. Nobody listens: a forbidden call during
    /// set-up stops the worker for good, with the call to be seen in
    /// `/proc/PID/syscall`, and the host ends it when it doesn't get ready.
    listener: Option<OwnedFd>,
}

/// What step two leaves for the host.
#[derive(Debug)]
pub struct Locked {
    /// Layers that could not be put on.
    pub missing: Missing,
    /// The running filter's listener, to be handed over; without one a
    /// forbidden call kills, and nobody is told which it was.
    pub listener: Option<OwnedFd>,
}

/// Step one, right after exec: nothing is reachable by name any more, no
/// privilege is left, and the launch filter is on.
///
/// # Errors
/// The first layer that can't be put on and isn't accepted to be missing.
pub fn close_in(orders: Orders<'_>) -> Result<Closed, LayerError> {
    let mut putting = Putting {
        accepted: orders.accepted,
        off: orders.off,
        missing: Missing::new(),
    };
    putting.on(Layer::UtsNamespace, namespaces::forget_the_host_s_name)?;
    putting.on(Layer::EmptyRoot, root::apply)?;
    putting.on(Layer::NoNewPrivs, no_new_privs::apply)?;
    let namespaced = !orders.off.has(Layer::UserNamespace);
    putting.on(Layer::Capabilities, || capabilities::apply(namespaced))?;
    if !orders.dumpable {
        dumpable::apply()?;
    }
    let mut listener = None;
    putting.on(Layer::Seccomp, || {
        load(Kind::Launch, true).map(|loaded| listener = loaded)
    })?;
    Ok(Closed {
        missing: putting.missing,
        listener,
    })
}

/// Step two, when all code is loaded: only what the kind of worker and its
/// grants need is left.
///
/// # Errors
/// The first layer that can't be put on and isn't accepted to be missing.
pub fn lock(
    closed: Closed,
    kind: Kind,
    granted: &[Granted<'_>],
    orders: Orders<'_>,
) -> Result<Locked, LayerError> {
    let mut putting = Putting {
        accepted: orders.accepted,
        off: orders.off,
        missing: closed.missing,
    };
    putting.on(Layer::Landlock, || landlock::apply(granted))?;
    putting.on(Layer::Mdwe, mdwe::apply)?;
    // A chain of filters has one listener at a time.
    let notifies = closed.listener.is_some();
    drop(closed.listener);
    let mut listener = None;
    putting.on(Layer::Seccomp, || {
        load(kind, notifies).map(|loaded| listener = loaded)
    })?;
    Ok(Locked {
        missing: putting.missing,
        listener,
    })
}

/// Loads the filter of `kind`, with a listener if there can be one. Where
/// somebody outside listens to this process already, there can't: forbidden
/// calls then kill. So they must from the first filter on, as a call that one
/// filter kills for never gets to another's listener.
fn load(kind: Kind, notify: bool) -> Result<Option<OwnedFd>, LayerError> {
    let policy = policy(kind);
    if notify {
        let filter = seccomp::compile(&policy, Denied::Notify)?;
        match seccomp::load_with_listener(&filter) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if error.source.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    seccomp::load(&seccomp::compile(&policy, Denied::Kill)?)?;
    Ok(None)
}
