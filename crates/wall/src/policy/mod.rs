//! Which system calls a worker may make, with which arguments, and why.
//!
//! One function, [`policy`], computes the list from what the worker is for,
//! what it was granted and what its module imports. The filter is compiled
//! from it ([`crate::layers::seccomp`]) and `lazaret audit` prints it, so what
//! is printed is what holds. [`files`] does the same for Landlock.

mod files;
mod lists;
mod uses;

use serde::Serialize;

use crate::architecture::Architecture;

pub use files::files;
pub use uses::Uses;

/// A check of one argument (counted from 0). It looks at the low 32 bits: the
/// kernel takes `int` and `unsigned int` parameters from there, whatever the
/// upper half holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The 32-bit argument equals.
    Is(u8, u32),
    /// The 32-bit argument, masked, equals: `argument & mask == value`.
    Masked(u8, u32, u32),
}

impl Check {
    /// Whether these arguments pass.
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let (Self::Is(argument, _) | Self::Masked(argument, ..)) = *self;
        // The low half, as the filter loads it.
        let Some(found) = arguments.get(usize::from(argument)) else {
            return false;
        };
        let found = *found as u32;
        match *self {
            Self::Is(_, value) => found == value,
            Self::Masked(_, mask, value) => found & mask == value,
        }
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is(argument, value) => write!(f, "arg{argument} = {value:#x}"),
            Self::Masked(argument, mask, 0) => write!(f, "arg{argument} has none of {mask:#x}"),
            Self::Masked(argument, mask, value) => {
                write!(f, "arg{argument} & {mask:#x} = {value:#x}")
            }
        }
    }
}

/// One allowed system call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// Its name.
    pub name: &'static str,
    /// Its number on the policy's architecture.
    pub number: i64,
    /// Alternatives, each a list of checks that must all hold. Empty: any
    /// arguments.
    pub arguments: Vec<Vec<Check>>,
    /// What the worker needs it for.
    pub why: &'static str,
}

impl Allowed {
    /// Whether it is allowed with these arguments.
    pub fn permits(&self, arguments: &[u64; 6]) -> bool {
        self.arguments.is_empty()
            || self
                .arguments
                .iter()
                .any(|alternative| alternative.iter().all(|check| check.holds(arguments)))
    }
}

/// What a program was granted, and what its module imports, that needs system
/// calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct ProgramRights {
    /// It has directories.
    pub directories: bool,
    /// It may write in at least one of them.
    pub writable: bool,
    /// What its imports can need.
    pub uses: Uses,
}

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Any worker, from exec until it is locked.
    Launch,
    /// A tenant's worker.
    Tenant,
    /// A compiler.
    Compiler,
    /// A program.
    Program(ProgramRights),
}

impl Kind {
    /// The program that may do most: all others can only do less.
    pub const WIDEST_PROGRAM: Self = Self::Program(ProgramRights {
        directories: true,
        writable: true,
        uses: Uses::ALL,
    });
}

/// A list of allowed system calls. Any other is a forbidden call: it doesn't
/// happen, and the worker ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// What it is for.
    pub kind: Kind,
    /// The architecture that its numbers are of.
    pub architecture: Architecture,
    /// What is allowed, one entry for each call.
    pub allowed: Vec<Allowed>,
}

impl Policy {
    /// The entry of a system call, if it is allowed at all.
    pub fn find(&self, number: i64) -> Option<&Allowed> {
        self.allowed.iter().find(|allowed| allowed.number == number)
    }

    /// Whether a call of this architecture (`AUDIT_ARCH_*`) may be made: what
    /// the compiled filter has to answer.
    pub fn permits(&self, audit: u32, number: u32, arguments: &[u64; 6]) -> bool {
        audit == self.architecture.audit()
            && self
                .find(number.into())
                .is_some_and(|allowed| allowed.permits(arguments))
    }
}

/// A system call that the kernel answers before it asks any filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Unfiltered {
    /// Its name.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: i64,
    /// What it does when a worker calls it.
    pub effect: &'static str,
}

/// What no filter can refuse (`seccomp_uprobe_exception`, kernel:
/// `kernel/seccomp.c`): calls that a tracer's probes make in a traced process.
/// For a kernel that doesn't know them they are forbidden calls like any other.
#[cfg(target_arch = "x86_64")]
pub const UNFILTERED: &[Unfiltered] = &[
    Unfiltered {
        name: "uretprobe",
        number: 335,
        effect: "SIGILL: it was not called from a return probe's trampoline (arch/x86/kernel/uprobes.c)",
    },
    Unfiltered {
        name: "uprobe",
        number: 336,
        effect: "ENXIO: it was not called from a probe's trampoline (arch/x86/kernel/uprobes.c)",
    },
];
/// What no filter can refuse: nothing on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub const UNFILTERED: &[Unfiltered] = &[];

/// The descriptors of a compiler: it reads the module from one and writes the
/// artefact to the other.
pub const COMPILER_INPUT: i32 = 0;
/// See [`COMPILER_INPUT`].
pub const COMPILER_OUTPUT: i32 = 1;

/// The list for a kind of worker, on this architecture.
pub fn policy(kind: Kind) -> Policy {
    policy_on(kind, Architecture::HERE)
}

/// The list for a kind of worker.
pub fn policy_on(kind: Kind, architecture: Architecture) -> Policy {
    let mut list = lists::List::new(architecture);
    match kind {
        Kind::Launch => {
            lists::launch(&mut list);
            // Filters stack, and every one of them must agree: what some kind
            // of worker may do later has to pass here too.
            for later in [Kind::WIDEST_PROGRAM, Kind::Compiler, Kind::Tenant]
                .into_iter()
                .flat_map(|kind| policy_on(kind, architecture).allowed)
            {
                list.later(&later);
            }
        }
        Kind::Tenant => lists::base(&mut list),
        Kind::Compiler => {
            lists::base(&mut list);
            lists::compiler(&mut list);
        }
        Kind::Program(rights) => {
            lists::base(&mut list);
            lists::program(&mut list, rights);
        }
    }
    Policy {
        kind,
        architecture,
        allowed: list.finish(),
    }
}

#[cfg(test)]
mod tests;
