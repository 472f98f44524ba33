//! A seccomp filter around a test, as a container's profile is one: it applies to
//! the thread that installs it and to all that this starts, launchers and workers
//! included.
// Each test binary uses a part of it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// A system call that the outer filter refuses: number, a first argument if it
/// depends on that, and the error.
pub type Refused = (i64, Option<u64>, i32);

/// Installs a filter that refuses these calls, in this thread.
pub fn refuse(calls: &[Refused]) {
    for (number, first, errno) in calls {
        let rules = first
            .map(|value| rule(0, SeccompCmpOp::Eq, value))
            .into_iter()
            .collect();
        install(*number, rules, *errno);
    }
}

/// Installs a filter that refuses a call when this argument has this bit.
pub fn refuse_flag(number: i64, argument: u8, bit: u64, errno: i32) {
    let rule = rule(argument, SeccompCmpOp::MaskedEq(bit), bit);
    install(number, vec![rule], errno);
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> SeccompRule {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .expect("a condition");
    SeccompRule::new(vec![condition]).expect("a rule")
}

fn install(number: i64, rules: Vec<SeccompRule>, errno: i32) {
    let filter = SeccompFilter::new(
        BTreeMap::from([(number, rules)]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        TargetArch::x86_64,
    );
    let program: BpfProgram = filter.expect("a filter").try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("the filter loads");
}
