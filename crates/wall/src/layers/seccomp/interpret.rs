//! What the kernel would answer: an interpreter of the filters that
//! [`mod@super::compile`] writes, to check them against their policies.

use super::compile::{
    AND, ARCHITECTURE, ARGUMENTS, Filter, JUMP, JUMP_AT_LEAST, JUMP_EQUAL, LOAD_WORD, NUMBER,
    RETURN,
};

/// A system call as a filter sees it: `struct seccomp_data` without the
/// instruction pointer, which no filter of ours looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    /// `AUDIT_ARCH_*`.
    pub audit: u32,
    /// The call's number.
    pub number: u32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// The filter's answer, and how many instructions it took. None if it is no
/// program that the kernel would load.
pub fn run(filter: &Filter, data: &Data) -> Option<(u32, usize)> {
    let (mut at, mut accumulator, mut steps) = (0usize, 0u32, 0);
    loop {
        let one = filter.instructions().get(at)?;
        at += 1;
        steps += 1;
        let jump = |taken: bool| usize::from(if taken { one.jt } else { one.jf });
        match one.code {
            LOAD_WORD => accumulator = load(data, one.k)?,
            AND => accumulator &= one.k,
            JUMP => at = at.checked_add(usize::try_from(one.k).ok()?)?,
            JUMP_EQUAL => at += jump(accumulator == one.k),
            JUMP_AT_LEAST => at += jump(accumulator >= one.k),
            RETURN => return Some((one.k, steps)),
            _ => return None,
        }
    }
}

fn load(data: &Data, offset: u32) -> Option<u32> {
    match offset {
        NUMBER => Some(data.number),
        ARCHITECTURE => Some(data.audit),
        _ => {
            let word = offset.checked_sub(ARGUMENTS)?;
            let argument = data.arguments.get(usize::try_from(word / 8).ok()?)?;
            match word % 8 {
                // The halves of an argument, little endian.
                0 => Some(*argument as u32),
                4 => Some((*argument >> 32) as u32),
                _ => None,
            }
        }
    }
}
