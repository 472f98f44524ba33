//! A filter of system call numbers alone, as a binary search.
//!
//! When a filter is loaded, the kernel runs it for every system call number to
//! learn which are always allowed (`seccomp_cache_prepare`, kernel:
//! kernel/seccomp.c, commit 8e01b51a31a1). A list of a hundred numbers that is
//! searched from its beginning costs 0.4 ms there, for every worker; a tree
//! costs a tenth.

use seccompiler::{BpfProgram, sock_filter};

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data` (kernel: include/uapi/linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// `AUDIT_ARCH_*` (kernel: include/uapi/linux/audit.h).
#[cfg(target_arch = "x86_64")]
const THIS: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const THIS: u32 = 0xC000_00B7;

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Allows `numbers` on this architecture and kills the process for any other.
pub(super) fn compile(numbers: impl IntoIterator<Item = u32>) -> BpfProgram {
    let mut sorted: Vec<u32> = numbers.into_iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    // Where the answer changes: from each of these numbers on it is the other
    // one. Below the first, nothing is allowed.
    let mut changes: Vec<u32> = Vec::new();
    for number in sorted {
        match changes.last() {
            Some(&end) if end == number => {
                changes.pop();
            }
            _ => changes.push(number),
        }
        changes.push(number + 1);
    }
    // Written from its end, as jumps only go forward: the two answers, the tree
    // before them, and before that the look at the architecture. Without any
    // change the tree is the answer that was written last.
    let mut backwards = vec![
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    search(&changes, false, &mut backwards);
    backwards.extend([
        instruction(LOAD_WORD, 0, 0, NUMBER),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(JUMP_EQUAL, 1, 0, THIS),
        instruction(LOAD_WORD, 0, 0, ARCHITECTURE),
    ]);
    backwards.reverse();
    backwards
}

/// Writes the search for a number among `changes`, where `allowed` is the
/// answer below the first of them. Returns where in `backwards` it begins. All
/// searches share the two answers: the kernel translates a filter to machine
/// code when it is loaded, and that takes time for every instruction.
fn search(changes: &[u32], allowed: bool, backwards: &mut BpfProgram) -> usize {
    let middle = changes.len() / 2;
    let Some(&at) = changes.get(middle) else {
        return usize::from(!allowed);
    };
    // Every change turns the answer round.
    let turned = allowed ^ middle.is_multiple_of(2);
    let above = search(&changes[middle + 1..], turned, backwards);
    let below = search(&changes[..middle], allowed, backwards);
    let here = backwards.len();
    let skip = |target: usize| u8::try_from(here - 1 - target);
    // A jump reaches 255 instructions, far more than there are. A longer list
    // would be cut to "kill" here, never to "allow".
    backwards.push(match (skip(above), skip(below)) {
        (Ok(above), Ok(below)) => instruction(JUMP_AT_LEAST, above, below, at),
        _ => instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    });
    here
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn run(program: &BpfProgram, architecture: u32, number: u32) -> (u32, usize) {
        let (mut at, mut accumulator, mut steps) = (0, 0, 0);
        loop {
            let found = &program[at];
            at += 1;
            steps += 1;
            let jump = |taken: bool| usize::from(if taken { found.jt } else { found.jf });
            match found.code {
                LOAD_WORD if found.k == NUMBER => accumulator = number,
                LOAD_WORD => accumulator = architecture,
                JUMP_EQUAL => at += jump(accumulator == found.k),
                JUMP_AT_LEAST => at += jump(accumulator >= found.k),
                RETURN => return (found.k, steps),
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn the_tree_allows_what_is_listed_and_nothing_else() {
        let lists: [&[u32]; 5] = [
            &[],
            &[0],
            &[1, 2, 3, 7, 9, 10, 400],
            &[0, 1, 2, 462],
            &[u32::MAX - 1],
        ];
        for list in lists {
            let program = compile(list.iter().copied());
            for number in (0..1000).chain([0x4000_0000, 0x4000_0001, u32::MAX - 1, u32::MAX]) {
                let expected = if list.contains(&number) {
                    libc::SECCOMP_RET_ALLOW
                } else {
                    libc::SECCOMP_RET_KILL_PROCESS
                };
                assert_eq!(run(&program, THIS, number).0, expected, "{list:?} {number}");
                let other = run(&program, THIS ^ 1, number).0;
                assert_eq!(other, libc::SECCOMP_RET_KILL_PROCESS);
            }
        }
    }

    #[test]
    fn the_launch_list_is_searched_in_a_few_steps() {
        let launch = crate::policy::policy(crate::policy::Kind::Launch);
        let numbers: Vec<u32> = launch
            .allowed
            .iter()
            .map(|entry| entry.number as u32)
            .collect();
        let program = compile(numbers.iter().copied());
        for number in 0..600 {
            let (answer, steps) = run(&program, THIS, number);
            assert_eq!(answer == libc::SECCOMP_RET_ALLOW, numbers.contains(&number));
            assert!(steps < 16, "{steps} steps for {number}");
        }
    }

    #[test]
    fn a_list_too_long_for_a_jump_is_cut_to_kill() {
        let numbers: Vec<u32> = (0..1000).map(|number| number * 2).collect();
        let program = compile(numbers.iter().copied());
        let allowed: Vec<u32> = (0..2000)
            .filter(|&number| run(&program, THIS, number).0 == libc::SECCOMP_RET_ALLOW)
            .collect();
        assert!(allowed.iter().all(|number| numbers.contains(number)));
        assert!(allowed.len() < numbers.len());
    }
}
