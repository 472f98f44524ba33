//! Landlock: no file, no TCP port, no abstract socket, no signal to others,
//! but what was granted (<https://docs.kernel.org/userspace-api/landlock.html>).
//!
//! What the layer promises is that no file can be opened but below what was
//! granted. The file rights of ABI 1 are enough for that and are required; what
//! newer kernels can refuse besides is taken where it is had, and [`coverage`]
//! says what that is here.
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
use crate::policy::{Uses, files};

/// A granted directory.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a> {
    /// Its descriptor.
    pub directory: BorrowedFd<'a>,
    /// Whether it may be written.
    pub writable: bool,
    /// What the program's imports can do there.
    pub uses: Uses,
}

/// The ABI without which the layer is missing: all it needs to refuse to open,
/// make, rename and remove files.
const NEEDED: ABI = ABI::V1;
/// The newest ABI whose rights are handled, if the kernel has them.
const NEWEST: ABI = ABI::V6;

/// What an ABI added, from the first on: its number, and what it can refuse
/// that those before it can't (kernel documentation, Landlock: "Previous
/// limitations"). What ABI 2 added is a permission, to move files between
/// granted directories, which ABI 1 always refuses. ABI 7 adds what is logged,
/// ABI 8 threads: nothing to refuse.
const REFUSED_SINCE: &[(i64, &str)] = &[
    (1, "files"),
    (3, "truncation"),
    (4, "TCP"),
    (5, "ioctl on devices"),
    (6, "abstract sockets and signals"),
];

/// What Landlock of this ABI refuses to a worker and what it can't, in words.
pub fn coverage(abi: i64) -> String {
    let words = |handled: bool| {
        REFUSED_SINCE
            .iter()
            .filter(|(since, _)| (*since <= abi) == handled)
            .map(|(_, what)| *what)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let newest = REFUSED_SINCE.last().map_or(0, |(since, _)| *since);
    match words(false) {
        // What any later ABI adds is not asked for.
        lacking if lacking.is_empty() => format!("ABI {abi}: refuses {}", words(true)),
        lacking if abi >= 1 => format!(
            "ABI {abi} of {newest}: refuses {}; can't refuse {lacking}, which the filter, the mounts and the namespaces do",
            words(true)
        ),
        _ => format!("ABI {abi}: refuses nothing"),
    }
}

/// The same for this kernel.
pub fn coverage_here() -> String {
    abi().map_or_else(|| "unknown ABI".to_owned(), coverage)
}

/// Denies everything that Landlock can deny here, except below `granted`.
///
/// # Errors
/// If the kernel can't refuse files, or something else goes wrong.
pub fn apply(granted: &[Granted<'_>]) -> Result<(), LayerError> {
    let fail = |step: &'static str| {
        move |error: landlock::RulesetError| LayerError {
            layer: Layer::Landlock,
            step,
            source: std::io::Error::other(error),
        }
    };
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))
        .map_err(fail("file rights"))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .map_err(fail("newer file rights"))?
        .handle_access(AccessNet::from_all(NEWEST))
        .map_err(fail("network rights"))?
        .scope(Scope::from_all(NEWEST))
        .map_err(fail("scopes"))?
        .create()
        .map_err(fail("create a ruleset"))?;
    for grant in granted {
        let rights = files(grant.writable, grant.uses);
        // A rule without rights is none (the kernel refuses it: ENOMSG).
        if rights.is_empty() {
            continue;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_can_not_refuse_is_said() {
        const OTHERS: &str = ", which the filter, the mounts and the namespaces do";
        for (abi, refused, lacking) in [
            (
                1,
                "files",
                "truncation, TCP, ioctl on devices, abstract sockets and signals",
            ),
            (
                2,
                "files",
                "truncation, TCP, ioctl on devices, abstract sockets and signals",
            ),
            (
                3,
                "files, truncation",
                "TCP, ioctl on devices, abstract sockets and signals",
            ),
            (
                4,
                "files, truncation, TCP",
                "ioctl on devices, abstract sockets and signals",
            ),
            (
                5,
                "files, truncation, TCP, ioctl on devices",
                "abstract sockets and signals",
            ),
        ] {
            assert_eq!(
                coverage(abi),
                format!("ABI {abi} of 6: refuses {refused}; can't refuse {lacking}{OTHERS}")
            );
        }
        for abi in [6, 7, 8, i64::MAX] {
            assert_eq!(
                coverage(abi),
                format!(
                    "ABI {abi}: refuses files, truncation, TCP, ioctl on devices, abstract sockets and signals"
                )
            );
        }
        for abi in [0, -1, i64::MIN] {
            assert_eq!(coverage(abi), format!("ABI {abi}: refuses nothing"));
        }
    }

    /// The table says of each ABI what the rights say that are asked for.
    #[test]
    fn the_table_agrees_with_the_rights() {
        let abis = [ABI::V1, ABI::V2, ABI::V3, ABI::V4, ABI::V5, ABI::V6];
        assert_eq!(abis.last(), Some(&NEWEST));
        let adds = |number: usize| {
            let (before, this) = (
                number.checked_sub(2).map_or(ABI::Unsupported, |i| abis[i]),
                abis[number - 1],
            );
            let files = AccessFs::from_all(this) & !AccessFs::from_all(before);
            // Moving is refused by those that don't know the right.
            !(files & !AccessFs::Refer).is_empty()
                || AccessNet::from_all(this) != AccessNet::from_all(before)
                || Scope::from_all(this) != Scope::from_all(before)
        };
        for number in 1..=abis.len() {
            assert_eq!(
                REFUSED_SINCE
                    .iter()
                    .any(|(since, _)| *since == number as i64),
                adds(number),
                "ABI {number}"
            );
        }
    }
}
