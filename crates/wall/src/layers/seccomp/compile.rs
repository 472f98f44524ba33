//! From a policy to a filter: a classic BPF program (kernel:
//! Documentation/networking/filter.rst).
//!
//! When a filter is loaded, the kernel runs it for every system call number to
//! learn which are always allowed, and later answers those from a bitmap
//! (`seccomp_cache_prepare`, kernel: kernel/seccomp.c, commit 8e01b51a31a1). A
//! list of a hundred numbers that is searched from its beginning costs 0.4 ms
//! there, for every worker; a tree costs a tenth. So numbers are found by
//! bisection, and only then are arguments looked at.

use thiserror::Error;

use crate::policy::{Allowed, Check, Policy};

pub(super) const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data` (kernel: include/uapi/linux/seccomp.h).
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
/// Of the low half of the first argument; both architectures are little endian.
pub(super) const ARGUMENTS: u32 = 16;

/// The most instructions of a filter (`BPF_MAXINSNS`).
const MOST: usize = 4096;

/// A policy that makes a longer filter than the kernel takes, or one with
/// longer jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the policy of {calls} system calls makes too long a filter")]
pub struct TooLong {
    /// The calls in it.
    pub calls: usize,
}

/// A compiled filter.
#[derive(Debug, Clone)]
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Its instructions.
    pub fn instructions(&self) -> &[libc::sock_filter] {
        &self.0
    }

    /// As the kernel wants to be told of it.
    pub(super) fn program(&self) -> libc::sock_fprog {
        libc::sock_fprog {
            // At most 4,096.
            len: self.0.len() as u16,
            // The kernel only reads them.
            filter: self.0.as_ptr().cast_mut(),
        }
    }

    /// Its bytes, as on this machine in memory: what a hash of it is taken of.
    pub fn bytes(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|one| {
                let [c0, c1] = one.code.to_le_bytes();
                let [k0, k1, k2, k3] = one.k.to_le_bytes();
                [c0, c1, one.jt, one.jf, k0, k1, k2, k3]
            })
            .collect()
    }
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// What the search for a number ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Deny,
    Allow,
    /// Look at the arguments: the number of the entry.
    Look(usize),
}

/// Allows what the policy allows, and answers `denied` to everything else.
pub(super) fn compile(policy: &Policy, denied: u32) -> Result<Filter, TooLong> {
    let too_long = TooLong {
        calls: policy.allowed.len(),
    };
    let mut sorted: Vec<(u32, &Allowed)> = policy
        .allowed
        .iter()
        .filter_map(|entry| Some((u32::try_from(entry.number).ok()?, entry)))
        .collect();
    sorted.sort_by_key(|(number, _)| *number);
    // From each of these numbers on, the search ends so. Below the first,
    // nothing is allowed.
    let mut changes: Vec<(u32, Leaf)> = Vec::new();
    let mut looks: Vec<&Allowed> = Vec::new();
    for (number, entry) in sorted {
        let leaf = if entry.arguments.is_empty() {
            Leaf::Allow
        } else {
            looks.push(entry);
            Leaf::Look(looks.len() - 1)
        };
        if changes.last().is_some_and(|(end, _)| *end == number) {
            changes.pop();
        }
        if changes.last().is_none_or(|(_, before)| *before != leaf) {
            changes.push((number, leaf));
        }
        changes.push((number.saturating_add(1), Leaf::Deny));
    }
    // Written from its end, as jumps only go forward. First what looks at
    // arguments, then the landings of the search, which are near it, as a
    // conditional jump reaches 255 instructions; then the search.
    let mut to = Backwards(Vec::new());
    let blocks: Vec<usize> = looks
        .iter()
        .map(|entry| to.arguments(entry, denied).ok_or(too_long))
        .collect::<Result<_, _>>()?;
    let mut landings = Landings {
        deny: to.put(instruction(RETURN, 0, 0, denied)),
        allow: 0,
        looks: Vec::new(),
    };
    landings.allow = to.put(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    for block in blocks {
        // The number of instructions between the landing and its block.
        let distance = to.0.len() - 1 - block;
        landings
            .looks
            .push(to.put(instruction(JUMP, 0, 0, distance as u32)));
    }
    let search = to.search(&changes, Leaf::Deny, &landings).ok_or(too_long)?;
    // Without anything to search for, the answer is a landing.
    let distance = to.0.len() - 1 - search;
    if distance > 0 {
        to.put(instruction(JUMP, 0, 0, distance as u32));
    }
    to.put(instruction(LOAD_WORD, 0, 0, NUMBER));
    to.put(instruction(RETURN, 0, 0, denied));
    to.put(instruction(JUMP_EQUAL, 1, 0, policy.architecture.audit()));
    to.put(instruction(LOAD_WORD, 0, 0, ARCHITECTURE));
    to.0.reverse();
    if to.0.len() > MOST {
        return Err(too_long);
    }
    Ok(Filter(to.0))
}

/// Where the search's ends lie, counted from the program's end.
struct Landings {
    deny: usize,
    allow: usize,
    looks: Vec<usize>,
}

impl Landings {
    fn of(&self, leaf: Leaf) -> Option<usize> {
        match leaf {
            Leaf::Deny => Some(self.deny),
            Leaf::Allow => Some(self.allow),
            Leaf::Look(entry) => self.looks.get(entry).copied(),
        }
    }
}

/// A program that is written from its end.
struct Backwards(Vec<libc::sock_filter>);

impl Backwards {
    /// Puts an instruction before all others and returns where it is.
    fn put(&mut self, instruction: libc::sock_filter) -> usize {
        self.0.push(instruction);
        self.0.len() - 1
    }

    /// How far a conditional jump that is put next skips to get to `target`.
    fn skip(&self, target: usize) -> Option<u8> {
        u8::try_from(self.0.len() - 1 - target).ok()
    }

    /// Writes the search among `changes`, where `below` is the answer below the
    /// first of them, and returns where it begins. All searches share the
    /// landings: the kernel translates a filter to machine code when it is
    /// loaded, and that takes time for every instruction.
    fn search(
        &mut self,
        changes: &[(u32, Leaf)],
        below: Leaf,
        landings: &Landings,
    ) -> Option<usize> {
        let Some((first, rest)) = changes.split_at_checked(changes.len() / 2) else {
            return landings.of(below);
        };
        let Some(((at, leaf), above)) = rest.split_first() else {
            return landings.of(below);
        };
        let above = self.search(above, *leaf, landings)?;
        let below = self.search(first, below, landings)?;
        let (above, below) = (self.skip(above)?, self.skip(below)?);
        Some(self.put(instruction(JUMP_AT_LEAST, above, below, *at)))
    }

    /// Writes the look at a call's arguments and returns where it begins.
    fn arguments(&mut self, entry: &Allowed, denied: u32) -> Option<usize> {
        let mut otherwise = self.put(instruction(RETURN, 0, 0, denied));
        for alternative in entry.arguments.iter().rev() {
            self.put(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
            for check in alternative.iter().rev() {
                let (argument, mask, value) = match *check {
                    Check::Is(argument, value) => (argument, None, value),
                    Check::Masked(argument, mask, value) => (argument, Some(mask), value),
                };
                let fails = self.skip(otherwise)?;
                self.put(instruction(JUMP_EQUAL, 0, fails, value));
                if let Some(mask) = mask {
                    self.put(instruction(AND, 0, 0, mask));
                }
                self.put(instruction(
                    LOAD_WORD,
                    0,
                    0,
                    ARGUMENTS + 8 * u32::from(argument),
                ));
            }
            otherwise = self.0.len() - 1;
        }
        Some(otherwise)
    }
}
