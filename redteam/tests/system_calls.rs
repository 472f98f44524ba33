//! Promise: the kernel answers a worker only the system calls that `lazaret
//! audit` prints, with the arguments that it prints; any other kills it.
#![cfg(target_arch = "x86_64")]

mod quarantine;

use lazaret::Ending;
use lazaret::wall::policy::{Allowed, Check, Kind, UNFILTERED};
use lazaret::wall::{Architecture, Layer, Profile, policy};
use lazaret_redteam::attack::{Expected, Guard};
use lazaret_redteam::attacks;
use lazaret_redteam::system_call::{X32, compat_entry};
use quarantine::{BARE, NOTHING, Quarantine, READ_ONLY, READ_WRITE, Seen, older_kernels};

/// Arguments of several shapes: nothing, everything, pointers.
const SHAPES: [&str; 3] = [
    "0 0 0 0 0 0",
    "18446744073709551615 18446744073709551615 18446744073709551615 18446744073709551615 18446744073709551615 18446744073709551615",
    "memory 4096 memory 1 memory 16",
];

fn must_die(quarantine: &Quarantine, kind: Kind, number: i64, arguments: &str) {
    let seen = quarantine.attack_as(kind, &format!("system_call {number} {arguments}"));
    // A container's own filter comes first, with an error that nobody hears of.
    if older_kernels::profile() == Profile::Container
        && [libc::EPERM, libc::ENOSYS]
            .iter()
            .any(|errno| seen == Seen::Reply(format!("returned -{errno}")))
    {
        return;
    }
    let Seen::Ended(Ending::Violation(violation)) = &seen else {
        panic!("system call {number} ({arguments}) as {kind:?} is not on the list: {seen:?}");
    };
    // The kernel says which it was, and that is on record.
    assert!(violation.incident.is_some(), "{violation:?}");
    let call = violation.call.as_ref().expect("the call");
    // It takes the number from the low half of its register.
    assert_eq!(call.number, number as u32, "{call:?}");
    assert_eq!(call.audit_architecture, Architecture::HERE.audit());
    let wanted: Vec<Option<u64>> = arguments.split(' ').map(|word| word.parse().ok()).collect();
    for (found, wanted) in call.arguments.iter().zip(wanted) {
        assert_eq!(*found, wanted.unwrap_or(*found), "{call:?} ({arguments})");
    }
}

/// A call that no filter sees does nothing, or kills all the same.
fn must_do_nothing(quarantine: &Quarantine, kind: Kind, number: i64, arguments: &str) {
    let seen = quarantine.attack_as(kind, &format!("system_call {number} {arguments}"));
    let refused = format!("returned -{}", libc::ENXIO);
    assert!(
        seen == Seen::Reply(refused)
            || seen.is(Expected::Aborted("unexpected signal"))
            || seen.is(Expected::Violation),
        "system call {number} ({arguments}) as {kind:?}: {seen:?}"
    );
}

/// Every number that is on no list, in some of the shapes.
fn every_number_off_the_list_kills(kind: Kind, shapes: impl Fn(i64) -> Vec<&'static str>) {
    let quarantine = Quarantine::new();
    let policy = policy(kind);
    let mut forbidden = 0;
    for number in 0..=600 {
        if policy.find(number).is_none() {
            for shape in shapes(number) {
                match UNFILTERED.iter().any(|call| call.number == number) {
                    true => must_do_nothing(&quarantine, kind, number, shape),
                    false => must_die(&quarantine, kind, number, shape),
                }
            }
            forbidden += 1;
        }
    }
    assert_eq!(forbidden, 601 - policy.allowed.len());
    quarantine.neighbour_is_right();
}

/// One of the shapes, in turns.
fn in_turns(number: i64) -> Vec<&'static str> {
    vec![SHAPES[number as usize % SHAPES.len()]]
}

#[test]
fn a_tenant_s_worker_dies_of_every_call_that_is_not_on_its_list() {
    every_number_off_the_list_kills(Kind::Tenant, |_| SHAPES.to_vec());
}

#[test]
fn a_compiler_dies_of_every_call_that_is_not_on_its_list() {
    every_number_off_the_list_kills(Kind::Compiler, in_turns);
}

#[test]
fn a_program_that_imports_nothing_dies_of_every_call_that_is_not_on_its_list() {
    every_number_off_the_list_kills(BARE, in_turns);
}

#[test]
fn a_program_dies_of_every_call_that_is_not_on_its_list() {
    every_number_off_the_list_kills(NOTHING, in_turns);
}

#[test]
fn a_program_with_a_directory_to_read_dies_of_every_call_that_is_not_on_its_list() {
    every_number_off_the_list_kills(READ_ONLY, in_turns);
}

#[test]
fn a_program_with_a_directory_to_write_dies_of_every_call_that_is_not_on_its_list() {
    every_number_off_the_list_kills(READ_WRITE, in_turns);
}

/// Arguments with which an allowed call does nothing.
fn harmless(name: &str) -> [u64; 6] {
    // A number that is no descriptor, and one that is no address.
    let (no_file, nowhere) = (63, 1);
    match name {
        // The word there isn't 1: it doesn't sleep. Nor does it wake anybody.
        "futex" => [nowhere, 0, 1, 0, 0, 0],
        "mmap" => [0, 4096, 0, 0, u64::MAX, 0],
        "close" => [no_file, 0, 0, 0, 0, 0],
        "ppoll" => [0, 0, nowhere, 0, 0, 0],
        _ => [0; 6],
    }
}

/// Arguments that a list of checks lets pass.
fn fitting(entry: &Allowed, checks: &[Check]) -> [u64; 6] {
    let mut arguments = harmless(entry.name);
    for check in checks {
        match *check {
            Check::Is(argument, value) => arguments[usize::from(argument)] = value.into(),
            Check::Masked(argument, mask, value) => {
                let place = &mut arguments[usize::from(argument)];
                *place = *place & !u64::from(mask) | u64::from(value);
            }
        }
    }
    arguments
}

/// The same arguments with one bit changed, in each bit that a check looks at.
fn mutated(checks: &[Check], arguments: [u64; 6]) -> Vec<[u64; 6]> {
    let mut all = Vec::new();
    for check in checks {
        let (argument, mask) = match *check {
            Check::Is(argument, _) => (argument, u32::MAX),
            Check::Masked(argument, mask, _) => (argument, mask),
        };
        for bit in (0..32).filter(|bit| mask >> bit & 1 == 1) {
            let mut other = arguments;
            other[usize::from(argument)] ^= 1 << bit;
            all.push(other);
        }
    }
    all
}

fn words(arguments: [u64; 6]) -> String {
    arguments.map(|argument| argument.to_string()).join(" ")
}

/// What an allowed call must lead to.
fn lives(entry: &Allowed, seen: &Seen) -> bool {
    match entry.name {
        "exit_group" => seen.is(Expected::Exited(0)),
        // Returning from no signal: the registers are whatever the stack holds.
        "rt_sigreturn" => !seen.is(Expected::Violation) && !matches!(seen, Seen::Reply(_)),
        _ => matches!(seen, Seen::Reply(text) if text.starts_with("returned ")),
    }
}

/// Every entry of a list, with what it allows and with every bit changed that
/// it checks. `but` are lists that were probed already.
fn every_entry_is_probed(kind: Kind, but: &[Kind]) -> usize {
    let quarantine = Quarantine::new();
    let known: Vec<Allowed> = but.iter().flat_map(|kind| policy(*kind).allowed).collect();
    let (mut passed, mut killed) = (0, 0);
    for entry in policy(kind)
        .allowed
        .iter()
        .filter(|entry| !known.contains(entry))
    {
        let any = vec![Vec::new()];
        for checks in if entry.arguments.is_empty() {
            &any
        } else {
            &entry.arguments
        } {
            let arguments = fitting(entry, checks);
            assert!(entry.permits(&arguments));
            let seen = quarantine.attack_as(
                kind,
                &format!("system_call {} {}", entry.number, words(arguments)),
            );
            assert!(
                lives(entry, &seen),
                "{} {arguments:x?} as {kind:?} is on the list, but: {seen:?}",
                entry.name
            );
            passed += 1;
            for arguments in mutated(checks, arguments) {
                // A change may lead to another alternative of the same call.
                if !entry.permits(&arguments) {
                    must_die(&quarantine, kind, entry.number, &words(arguments));
                    killed += 1;
                }
            }
        }
    }
    assert!(passed > 0);
    killed
}

#[test]
fn every_entry_of_a_tenant_s_list_holds_bit_by_bit() {
    assert!(every_entry_is_probed(Kind::Tenant, &[]) > 100);
}

#[test]
fn every_entry_of_a_compiler_s_list_holds_bit_by_bit() {
    assert!(every_entry_is_probed(Kind::Compiler, &[Kind::Tenant]) >= 64);
}

#[test]
fn every_entry_of_a_program_s_list_holds_bit_by_bit() {
    assert!(every_entry_is_probed(NOTHING, &[Kind::Tenant]) >= 64);
    assert!(every_entry_is_probed(READ_WRITE, &[Kind::Tenant, NOTHING]) >= 32);
}

/// Every named attack that one system call is, or more: see the files under
/// `src/attacks`.
#[test]
fn every_attack_by_system_call_is_stopped_by_the_layer_that_it_names() {
    let quarantine = Quarantine::new();
    let kinds = [
        attacks::executable_memory::ATTACKS,
        attacks::processes::ATTACKS,
        attacks::files::ATTACKS,
        attacks::network::ATTACKS,
        attacks::signals::ATTACKS,
        attacks::privileges::ATTACKS,
    ];
    for attack in kinds.into_iter().flatten() {
        assert!(matches!(
            attack.stopped_by,
            Guard::Layer(Layer::Seccomp | Layer::Descriptors)
        ));
        quarantine.check(attack, "");
    }
    quarantine.victim_goes_on();
}

#[test]
fn the_32_bit_entry_kills() {
    let quarantine = Quarantine::new();
    let expected = if has_32_bit_entry() {
        Expected::Violation
    } else {
        Expected::Aborted("unexpected signal")
    };
    // exit, fork, read, open, execve, getpid, mmap2, socketcall, clone, futex,
    // and numbers that are allowed under another name in the 64-bit table.
    for number in [
        1,
        2,
        3,
        5,
        11,
        20,
        192,
        102,
        120,
        240,
        9,
        10,
        12,
        28,
        202,
        231,
        600,
        0x4000_0014,
    ] {
        let seen = quarantine.attack(&format!("compat {number}"));
        assert!(seen.is(expected), "int 0x80 with {number}: {seen:?}");
    }
    quarantine.victim_goes_on();
}

/// Whether this kernel has the 32-bit entry (`CONFIG_IA32_EMULATION`), tried
/// in a child.
fn has_32_bit_entry() -> bool {
    let mut status = 0;
    // SAFETY: the child makes two system calls and ends, so it doesn't matter
    // which locks other threads hold.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            // getpid.
            compat_entry(20);
            libc::_exit(0)
        }
        assert!(child > 0 && libc::waitpid(child, &mut status, 0) == child);
    }
    libc::WIFEXITED(status)
}

#[test]
fn x32_numbers_kill() {
    let quarantine = Quarantine::new();
    let allowed = policy(Kind::Tenant).allowed;
    for number in allowed.iter().map(|entry| entry.number).chain(512..=547) {
        must_die(&quarantine, Kind::Tenant, number + X32, SHAPES[0]);
    }
}

#[test]
fn numbers_beyond_any_table_kill() {
    let quarantine = Quarantine::new();
    for number in [601, 1000, 0xffff, 0x7fff_ffff, -1, -2, i64::from(i32::MIN)] {
        must_die(&quarantine, Kind::Tenant, number, SHAPES[0]);
    }
    // The kernel takes the low half of the register: fork is fork.
    must_die(&quarantine, Kind::Tenant, 57 | 1 << 32, SHAPES[0]);
}
