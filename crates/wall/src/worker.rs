//! A worker locks itself, in two steps.
//!
//! The launcher has already put it into namespaces with limits, and executed
//! it with an empty environment and one socket. What it does itself can only
//! narrow what it has; the host checks all of it from outside before any guest
//! code runs.

use crate::layer::{Layer, LayerError};
use crate::layers::landlock::Granted;
use crate::layers::{capabilities, dumpable, landlock, mdwe, no_new_privs, root, seccomp};
use crate::policy::{Kind, policy};

/// `argv[0]` of a worker.
pub const ARGV0: &std::ffi::CStr = c"lazaret:worker";

/// Layers that could not be put on and whose absence was accepted.
pub type Missing = Vec<Layer>;

struct Putting<'a> {
    accepted: &'a [Layer],
    missing: Missing,
}

impl Putting<'_> {
    fn on(&mut self, layer: Layer, result: Result<(), LayerError>) -> Result<(), LayerError> {
        match result {
            Ok(()) => Ok(()),
            Err(_) if self.accepted.contains(&layer) => {
                self.missing.push(layer);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Step one, right after exec: nothing is reachable by name any more, no
/// privilege is left, and the launch filter is on.
pub fn close_in(accepted: &[Layer]) -> Result<Missing, LayerError> {
    let mut putting = Putting {
        accepted,
        missing: Missing::new(),
    };
    let name = c"worker";
    // Its own UTS namespace still has the host's name.
    // SAFETY: a string and its length.
    if unsafe { libc::sethostname(name.as_ptr(), name.to_bytes().len()) } != 0 {
        putting.on(
            Layer::UtsNamespace,
            Err(LayerError::last(Layer::UtsNamespace, "sethostname")),
        )?;
    }
    putting.on(Layer::EmptyRoot, root::apply())?;
    putting.on(Layer::NoNewPrivs, no_new_privs::apply())?;
    putting.on(Layer::Capabilities, capabilities::apply())?;
    dumpable::apply()?;
    putting.on(Layer::Seccomp, seccomp::apply(&policy(Kind::Launch)))?;
    Ok(putting.missing)
}

/// Step two, when all code is loaded: only what the kind of worker and its
/// grants need is left.
pub fn lock(
    kind: Kind,
    granted: &[Granted<'_>],
    accepted: &[Layer],
) -> Result<Missing, LayerError> {
    let mut putting = Putting {
        accepted,
        missing: Missing::new(),
    };
    putting.on(Layer::Landlock, landlock::apply(granted))?;
    // The filter is compiled first: loading is then the last thing but one
    // system call that the process does unlocked.
    let program = seccomp::compile(&policy(kind));
    putting.on(Layer::Mdwe, mdwe::apply())?;
    putting.on(
        Layer::Seccomp,
        program.and_then(|program| seccomp::load(&program)),
    )?;
    Ok(putting.missing)
}
