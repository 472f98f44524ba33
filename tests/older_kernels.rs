//! What tests do on a kernel that is older than a feature: they do without it,
//! and say so on their output. `scripts/older-kernel.sh` runs them on one.
//!
//! A kernel that should have the feature and doesn't is no reason: there a test
//! fails.
// Each test binary uses a part of it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::OnceLock;

use lazaret::wall::probe::{self, kernel_tracker};
use lazaret::wall::{Layer, Probe, Profile};
use lazaret::{Builder, Host, TrackerKind};

/// Whether this kernel is older than Linux `major`.`minor`.
fn older_than(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let version = next()
        .zip(next())
        .expect("a version that begins with two numbers");
    version < (major, minor)
}

/// The layers that this kernel is too old for.
pub fn missing_layers() -> &'static [Layer] {
    static MISSING: OnceLock<Vec<Layer>> = OnceLock::new();
    MISSING.get_or_init(|| {
        let since = [(Layer::Landlock, (5, 13)), (Layer::Mdwe, (6, 3))];
        let mut missing = Vec::new();
        for (layer, (major, minor)) in since {
            if !older_than(major, minor) {
                continue;
            }
            if let Probe::Missing(why) = probe::layer(layer) {
                eprintln!("without {layer}: {why}; it came with Linux {major}.{minor}");
                missing.push(layer);
            }
        }
        missing
    })
}

/// Which wall the tests are about: `scripts/as-in-a-container.sh` runs them where no
/// namespaces can be made.
pub fn profile() -> Profile {
    std::env::var("LAZARET_PROFILE")
        .map_or(Profile::Full, |name| name.parse().expect("LAZARET_PROFILE"))
}

/// Whether a test can't run as it is about namespaces, and there are none; it says
/// so.
pub fn needs_namespaces() -> bool {
    let none = profile() == Profile::Container;
    if none {
        eprintln!("skipped: it is about namespaces, and the profile is `container`");
    }
    none
}

/// How to make a host, which accepts that the layers are missing that this
/// kernel is too old for.
pub fn builder() -> Builder {
    missing_layers()
        .iter()
        .fold(Host::builder().profile(profile()), |builder, layer| {
            builder.accept_missing(*layer)
        })
}

/// Whether a test can't run with this tracker, because this kernel is too old
/// for it.
pub fn lacks(tracker: TrackerKind) -> bool {
    static LACKS: OnceLock<bool> = OnceLock::new();
    if tracker == TrackerKind::Kernel && profile() == Profile::Container {
        eprintln!("skipped, with the kernel's tracker: a container refuses userfaultfd");
        return true;
    }
    tracker == TrackerKind::Kernel
        && *LACKS.get_or_init(|| match kernel_tracker() {
            Probe::Missing(why) if older_than(6, 7) => {
                eprintln!("skipped, with the kernel's tracker: {why}; it came with Linux 6.7");
                true
            }
            _ => false,
        })
}
