use super::compile::Filter;
use super::interpret::{Data, run};
use super::{Denied, compile};
use crate::architecture::Architecture;
use crate::policy::{Allowed, Check, Kind, Policy, ProgramRights, Uses, policy_on};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn every_policy() -> Vec<Policy> {
    let mut kinds = vec![Kind::Launch, Kind::Tenant, Kind::Compiler];
    for (directories, writable) in [(false, false), (true, false), (true, true)] {
        for uses in (0..18)
            .map(|bit| 1 << bit)
            .chain([0, u32::MAX, 0b11_0010_0110])
        {
            kinds.push(Kind::Program(ProgramRights {
                directories,
                writable,
                uses: Uses::from_bits(uses),
            }));
        }
    }
    kinds
        .into_iter()
        .flat_map(|kind| {
            Architecture::ALL
                .iter()
                .map(move |architecture| policy_on(kind, *architecture))
        })
        .collect()
}

/// Values that stand on both sides of every check of the policy.
fn interesting(entry: Option<&Allowed>) -> Vec<u64> {
    let mut values = vec![0, 1, 2, 3, 4, u64::from(u32::MAX), u64::MAX, 1 << 32];
    for check in entry
        .iter()
        .flat_map(|entry| entry.arguments.iter().flatten())
    {
        let (mask, value) = match *check {
            Check::Is(_, value) => (u32::MAX, value),
            Check::Masked(_, mask, value) => (mask, value),
        };
        values.extend([value, value ^ mask, value | !mask, !value].map(u64::from));
        // The upper half is nothing to the kernel.
        values.push(u64::from(value) | 0xDEAD_BEEF << 32);
        values.extend((0..32).map(|bit| u64::from(value ^ (1 << bit))));
    }
    values.sort_unstable();
    values.dedup();
    values
}

fn answers_as_the_policy(policy: &Policy, filter: &Filter, denied: Denied, data: &Data) -> usize {
    let (answer, steps) = run(filter, data).expect("a program that the kernel loads");
    let expected = if policy.permits(data.audit, data.number, &data.arguments) {
        ALLOW
    } else {
        denied.action()
    };
    assert_eq!(answer, expected, "{:?} {data:?}", policy.kind);
    steps
}

#[test]
fn every_filter_answers_as_its_policy() {
    for policy in every_policy() {
        let denied = if policy.kind == Kind::Tenant {
            Denied::Kill
        } else {
            Denied::Notify
        };
        let filter = compile(&policy, denied).unwrap();
        let here = policy.architecture.audit();
        for number in (0..600).chain([
            0x4000_0000,
            0x4000_0001,
            0x4000_0009,
            u32::MAX - 1,
            u32::MAX,
        ]) {
            let entry = policy.find(number.into());
            let mut data = Data {
                audit: here,
                number,
                arguments: [0; 6],
            };
            answers_as_the_policy(&policy, &filter, denied, &data);
            // AUDIT_ARCH_I386 (int 0x80), AUDIT_ARCH_ARM, and nonsense.
            for audit in [0x4000_0003, 0x4000_0028, 0, here ^ 1] {
                data.audit = audit;
                answers_as_the_policy(&policy, &filter, denied, &data);
            }
            data.audit = here;
            let values = interesting(entry);
            let checked = entry.is_some_and(|entry| !entry.arguments.is_empty());
            for argument in 0..6 {
                for value in values.iter().take(if checked { usize::MAX } else { 3 }) {
                    data.arguments = [0; 6];
                    data.arguments[argument] = *value;
                    answers_as_the_policy(&policy, &filter, denied, &data);
                    // And with all others as they should be.
                    let allowed = entry.and_then(|entry| entry.arguments.first());
                    for check in allowed.into_iter().flatten() {
                        let (Check::Is(at, value) | Check::Masked(at, _, value)) = *check;
                        if usize::from(at) != argument {
                            data.arguments[usize::from(at)] = value.into();
                        }
                    }
                    answers_as_the_policy(&policy, &filter, denied, &data);
                }
            }
        }
    }
}

/// The kernel answers from a bitmap what it finds always allowed when it runs
/// the filter with nothing but a number (`seccomp_is_const_allow`): so a call
/// that is allowed with any arguments must load none.
#[test]
fn what_is_always_allowed_looks_at_no_argument() {
    for policy in every_policy() {
        let filter = compile(&policy, Denied::Notify).unwrap();
        for entry in &policy.allowed {
            let data = |argument| Data {
                audit: policy.architecture.audit(),
                number: entry.number as u32,
                arguments: [argument; 6],
            };
            let (answer, steps) = run(&filter, &data(0)).unwrap();
            if entry.arguments.is_empty() {
                assert_eq!(answer, ALLOW, "{}", entry.name);
                assert_eq!(run(&filter, &data(u64::MAX)), Some((answer, steps)));
            }
            assert!(steps < 40, "{steps} steps for {}", entry.name);
        }
        for number in 0..600 {
            let data = Data {
                audit: policy.architecture.audit(),
                number,
                arguments: [0; 6],
            };
            let (_, steps) = run(&filter, &data).unwrap();
            assert!(steps < 40, "{steps} steps for {number}");
        }
    }
}

#[test]
fn a_policy_that_is_too_long_is_refused() {
    let mut policy = policy_on(Kind::Tenant, Architecture::HERE);
    let entry = policy.allowed[0].clone();
    policy.allowed = (0..1000)
        .map(|number| Allowed {
            number: number * 2,
            arguments: Vec::new(),
            ..entry.clone()
        })
        .collect();
    assert!(compile(&policy, Denied::Kill).is_err());
    policy.allowed.clear();
    let filter = compile(&policy, Denied::Kill).unwrap();
    let data = Data {
        audit: Architecture::HERE.audit(),
        number: 0,
        arguments: [0; 6],
    };
    assert_eq!(run(&filter, &data).unwrap().0, Denied::Kill.action());
}
