//! How far the kernel chooses addresses at random.
//!
//! A worker is executed anew, never only forked, so each has a layout of its
//! own: an address that one leaks says nothing of another's.

use std::sync::OnceLock;

use serde::Serialize;

/// What the kernel says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AddressLayout {
    /// `kernel.randomize_va_space`: 2 is all, 0 is nothing (kernel:
    /// Documentation/admin-guide/sysctl/kernel.rst).
    pub randomize_va_space: Option<u8>,
    /// `vm.mmap_rnd_bits`: how many bits of a mapping's page number are random
    /// (Documentation/admin-guide/sysctl/vm.rst). Only root may read it.
    pub mmap_random_bits: Option<u8>,
}

impl AddressLayout {
    /// What this kernel says, asked once.
    pub fn here() -> Self {
        static HERE: OnceLock<AddressLayout> = OnceLock::new();
        *HERE.get_or_init(|| Self {
            randomize_va_space: number("/proc/sys/kernel/randomize_va_space"),
            mmap_random_bits: number("/proc/sys/vm/mmap_rnd_bits"),
        })
    }

    /// Whether all is random, as far as is known.
    pub fn is_full(self) -> bool {
        self.randomize_va_space == Some(2)
    }
}

fn number(path: &str) -> Option<u8> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
