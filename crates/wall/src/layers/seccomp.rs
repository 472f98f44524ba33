//! seccomp: the kernel answers only the listed system calls; any other kills
//! the whole process (seccomp(2), `SECCOMP_RET_KILL_PROCESS`).
//!
//! The list is [`mod@crate::policy`]'s. It is compiled for this architecture
//! alone: a call through another entry (32-bit `int 0x80`) kills, and x32
//! numbers are on no list.

mod numbers;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::status_field;
use crate::layer::{Layer, LayerError};
use crate::policy::{Check, Policy};

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

fn condition(check: Check) -> Result<SeccompCondition, seccompiler::BackendError> {
    match check {
        Check::Is(argument, value) => SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            value.into(),
        ),
        Check::Masked(argument, mask, value) => SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(mask.into()),
            value.into(),
        ),
    }
}

/// Compiles a policy for the kernel.
pub fn compile(policy: &Policy) -> Result<BpfProgram, LayerError> {
    // Where no arguments are looked at, a tree does.
    if policy
        .allowed
        .iter()
        .all(|entry| entry.arguments.is_empty())
    {
        let numbers = policy
            .allowed
            .iter()
            .filter_map(|entry| u32::try_from(entry.number).ok());
        return Ok(numbers::compile(numbers));
    }
    let fail = |error: seccompiler::BackendError| LayerError {
        layer: Layer::Seccomp,
        step: "compile the filter",
        source: std::io::Error::other(error),
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for allowed in &policy.allowed {
        let entry = rules.entry(allowed.number).or_default();
        for alternative in &allowed.arguments {
            let conditions = alternative
                .iter()
                .map(|check| condition(*check))
                .collect::<Result<Vec<_>, _>>()
                .map_err(fail)?;
            entry.push(SeccompRule::new(conditions).map_err(fail)?);
        }
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        ARCH,
    )
    .map_err(fail)?;
    filter.try_into().map_err(fail)
}

/// Compiles and loads a policy. Filters stack: a later one only narrows.
pub fn apply(policy: &Policy) -> Result<(), LayerError> {
    load(&compile(policy)?)
}

/// Loads a compiled filter.
pub fn load(program: &BpfProgram) -> Result<(), LayerError> {
    seccompiler::apply_filter(program).map_err(|error| LayerError {
        layer: Layer::Seccomp,
        step: "load the filter",
        source: std::io::Error::other(error),
    })
}

/// From outside: `Seccomp: 2`, with at least `filters` filters.
pub fn verify(status: &str, filters: u32) -> Result<String, String> {
    match status_field(status, "Seccomp")? {
        "2" => {}
        other => return Err(format!("Seccomp is {other}, not 2")),
    }
    // The count came with Linux 5.10.
    let found: u32 = status_field(status, "Seccomp_filters")?
        .parse()
        .map_err(|_| "Seccomp_filters is no number".to_owned())?;
    if found < filters {
        return Err(format!("{found} filters, expected {filters}"));
    }
    Ok(format!("Seccomp 2, {found} filters"))
}
