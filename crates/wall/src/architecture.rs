//! The processor architectures that have a filter.

use serde::Serialize;
use syscalls::{aarch64, x86_64};

/// A processor architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// 64-bit x86. The same processors also answer 32-bit calls (`int 0x80`)
    /// and x32 ones (numbers with bit 30 set): no filter allows any.
    #[serde(rename = "x86-64")]
    X86_64,
    /// 64-bit Arm. 32-bit calls are another architecture to a filter.
    Aarch64,
}

impl Architecture {
    /// Every one.
    pub const ALL: &'static [Self] = &[Self::X86_64, Self::Aarch64];

    /// The one that this program was built for.
    #[cfg(target_arch = "x86_64")]
    pub const HERE: Self = Self::X86_64;
    /// The one that this program was built for.
    #[cfg(target_arch = "aarch64")]
    pub const HERE: Self = Self::Aarch64;

    /// `AUDIT_ARCH_*` (kernel: include/uapi/linux/audit.h), which a filter
    /// finds in `seccomp_data.arch`.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::Aarch64 => 0xC000_00B7,
        }
    }

    /// The name of a system call by its number, if it is known.
    pub fn call_name(self, number: u32) -> Option<&'static str> {
        let number = usize::try_from(number).ok()?;
        match self {
            Self::X86_64 => x86_64::Sysno::new(number).map(|call| call.name()),
            Self::Aarch64 => aarch64::Sysno::new(number).map(|call| call.name()),
        }
    }

    /// The number of a system call by its name.
    pub fn call_number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => name.parse::<x86_64::Sysno>().ok()?.id(),
            Self::Aarch64 => name.parse::<aarch64::Sysno>().ok()?.id(),
        };
        u32::try_from(number).ok()
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86-64",
            Self::Aarch64 => "aarch64",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_both_ways() {
        for architecture in Architecture::ALL {
            for number in 0..500 {
                if let Some(name) = architecture.call_name(number) {
                    assert_eq!(architecture.call_number(name), Some(number), "{name}");
                }
            }
            assert_eq!(architecture.call_name(0x4000_0000), None);
            assert_eq!(architecture.call_number("no_such_call"), None);
        }
        assert_eq!(Architecture::X86_64.call_name(101), Some("ptrace"));
        assert_eq!(Architecture::Aarch64.call_name(117), Some("ptrace"));
        assert_eq!(
            Architecture::HERE.call_number("futex"),
            u32::try_from(libc::SYS_futex).ok()
        );
    }
}
