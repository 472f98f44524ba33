//! Landlock: no file, no TCP port, no abstract socket, no signal to others,
//! but what was granted (<https://docs.kernel.org/userspace-api/landlock.html>).
//!
//! It is no network boundary by itself: `MSG_FASTOPEN` passes its TCP rules on
//! some kernels (landlock-lsm/linux issue 41). The empty network namespace and
//! the filter, which has no `socket`, stand before it.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use crate::layer::{Layer, LayerError};

/// A granted directory.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a> {
    /// Its descriptor.
    pub directory: BorrowedFd<'a>,
    /// Whether it may be written.
    pub writable: bool,
}

/// The newest ABI whose rights are handled, if the kernel has them.
const NEWEST: ABI = ABI::V6;

/// Denies everything that Landlock can deny here, except below `granted`.
pub fn apply(granted: &[Granted<'_>]) -> Result<(), LayerError> {
    let fail = |step: &'static str| {
        move |error: landlock::RulesetError| LayerError {
            layer: Layer::Landlock,
            step,
            source: std::io::Error::other(error),
        }
    };
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .map_err(fail("file rights"))?
        .handle_access(AccessNet::from_all(NEWEST))
        .map_err(fail("network rights"))?
        .scope(Scope::from_all(NEWEST))
        .map_err(fail("scopes"))?
        .create()
        .map_err(fail("create a ruleset"))?;
    for grant in granted {
        let writing = AccessFs::from_write(NEWEST)
            & !(AccessFs::MakeChar
                | AccessFs::MakeBlock
                | AccessFs::MakeSock
                | AccessFs::MakeFifo
                | AccessFs::IoctlDev);
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        let rights = if grant.writable {
            reading | writing
        } else {
            reading
        };
        ruleset = ruleset
            .add_rule(PathBeneath::new(grant.directory, rights))
            .map_err(fail("grant a directory"))?;
    }
    let status = ruleset.restrict_self().map_err(fail("restrict"))?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(LayerError {
            layer: Layer::Landlock,
            step: "restrict",
            source: std::io::ErrorKind::Unsupported.into(),
        });
    }
    Ok(())
}

/// The kernel's Landlock ABI version, if it has one
/// (`LANDLOCK_CREATE_RULESET_VERSION`).
pub fn abi() -> Option<i64> {
    // SAFETY: the documented way to ask: no attributes, size 0, flag 1.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            1u32,
        )
    };
    (version > 0).then_some(version)
}
