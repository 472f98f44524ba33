//! The filters that are compiled from policies, interpreted, against the
//! policies themselves: for every kind of worker, both architectures, and
//! policies that nobody would write.
#![no_main]

use arbitrary::Arbitrary;
use lazaret_wall::architecture::Architecture;
use lazaret_wall::layers::seccomp::interpret::{Data, run};
use lazaret_wall::layers::seccomp::{Denied, compile};
use lazaret_wall::policy::{Allowed, Check, Kind, Policy, ProgramRights, Uses, policy_on};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Of {
    Launch,
    Tenant,
    Compiler,
    Program {
        directories: bool,
        writable: bool,
        uses: u32,
    },
    /// Numbers, with checks: argument, mask and value.
    Made(Vec<(u16, Vec<Vec<(u8, Option<u32>, u32)>>)>),
}

#[derive(Debug, Arbitrary)]
struct Input {
    of: Of,
    arm: bool,
    notify: bool,
    calls: Vec<(bool, u32, [u64; 6])>,
}

fn made(entries: Vec<(u16, Vec<Vec<(u8, Option<u32>, u32)>>)>, architecture: Architecture) -> Policy {
    let mut allowed: Vec<Allowed> = Vec::new();
    for (number, alternatives) in entries {
        if allowed.iter().any(|entry| entry.number == i64::from(number)) {
            continue;
        }
        let arguments = alternatives
            .into_iter()
            .filter(|checks| !checks.is_empty())
            .map(|checks| {
                checks
                    .into_iter()
                    .map(|(argument, mask, value)| match mask {
                        Some(mask) => Check::Masked(argument % 6, mask, value),
                        None => Check::Is(argument % 6, value),
                    })
                    .collect()
            })
            .collect();
        allowed.push(Allowed {
            name: "made",
            number: number.into(),
            arguments,
            why: "fuzzing",
        });
    }
    Policy {
        kind: Kind::Launch,
        architecture,
        allowed,
    }
}

fuzz_target!(|input: Input| {
    let architecture = match input.arm {
        true => Architecture::Aarch64,
        false => Architecture::X86_64,
    };
    let policy = match input.of {
        Of::Launch => policy_on(Kind::Launch, architecture),
        Of::Tenant => policy_on(Kind::Tenant, architecture),
        Of::Compiler => policy_on(Kind::Compiler, architecture),
        Of::Program {
            directories,
            writable,
            uses,
        } => policy_on(
            Kind::Program(ProgramRights {
                directories,
                writable,
                uses: Uses::from_bits(uses),
            }),
            architecture,
        ),
        Of::Made(entries) => made(entries, architecture),
    };
    let denied = match input.notify {
        true => Denied::Notify,
        false => Denied::Kill,
    };
    // A policy may be too long for a filter; then there is none.
    let Ok(filter) = compile(&policy, denied) else {
        return;
    };
    let known = policy.allowed.iter().map(|entry| entry.number as u32);
    let numbers: Vec<u32> = known.flat_map(|number| [number, number + 1]).collect();
    for (ours, number, arguments) in input.calls {
        // Half of the numbers are those that matter.
        let number = match numbers.get(number as usize / 2 % numbers.len().max(1)) {
            Some(near) if number % 2 == 0 => *near,
            _ => number,
        };
        let audit = match ours {
            true => architecture.audit(),
            false => number.rotate_left(7),
        };
        let data = Data {
            audit,
            number,
            arguments,
        };
        let (answer, _) = run(&filter, &data).expect("a program that the kernel loads");
        let expected = match policy.permits(audit, number, &arguments) {
            true => libc::SECCOMP_RET_ALLOW,
            false => denied.action(),
        };
        assert_eq!(answer, expected, "{data:?} {policy:?}");
    }
});
