//! Promise: a layer that this host lacks is an error that names it, unless the
//! operator accepted that; then the receipt says that it is missing.
//!
//! The lack is made by an outer filter in a child of this test, before the
//! host: what a container's profile does. It applies to the thread that
//! installs it and to what that thread starts, launcher and workers included.
#![cfg(target_arch = "x86_64")]

#[path = "../../tests/older_kernels.rs"]
mod older_kernels;
#[path = "../../tests/outer_filter.rs"]
mod outer_filter;

use std::process::Command;

use lazaret::wall::Layer;
use lazaret::wall::launcher::LauncherError;
use lazaret::wall::receipt::State;
use lazaret::{CompileError, Host, Report, RunError, Verdict, WorkerError};
use outer_filter::{Refused, refuse};

/// Says to a child which of the lacks below it has.
const LACK: &str = "LAZARET_REDTEAM_LACK";
const PROGRAM: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// What a host can lack, by the layer that it is.
const LACKS: &[(&str, Layer, &[Refused])] = &[
    (
        "landlock-unknown",
        Layer::Landlock,
        &[(libc::SYS_landlock_create_ruleset, None, libc::ENOSYS)],
    ),
    (
        "landlock-refused",
        Layer::Landlock,
        &[(libc::SYS_landlock_create_ruleset, None, libc::EPERM)],
    ),
    (
        "landlock-off",
        Layer::Landlock,
        &[(libc::SYS_landlock_create_ruleset, None, libc::EOPNOTSUPP)],
    ),
    (
        "mdwe-unknown",
        Layer::Mdwe,
        &[(libc::SYS_prctl, Some(65), libc::EINVAL)],
    ),
    (
        "root-refused",
        Layer::EmptyRoot,
        &[(libc::SYS_pivot_root, None, libc::EPERM)],
    ),
];

/// What a host can lack without which no worker starts at all.
const NEEDED: &[(&str, Layer, &[Refused])] = &[
    (
        "namespaces-refused",
        Layer::UserNamespace,
        &[(libc::SYS_clone3, None, libc::EPERM)],
    ),
    (
        "namespaces-unknown",
        Layer::UserNamespace,
        &[
            (libc::SYS_clone3, None, libc::ENOSYS),
            (libc::SYS_clone, Some(NAMESPACES), libc::EPERM),
            // With groups of version 2 a launcher keeps the host's.
            (
                libc::SYS_clone,
                Some(NAMESPACES & !(libc::CLONE_NEWCGROUP as u32 as u64)),
                libc::EPERM,
            ),
        ],
    ),
];

/// The flags with which `clone` is asked for a launcher where there is no
/// `clone3`: all namespaces, a pidfd, SIGCHLD.
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_PIDFD
    | libc::SIGCHLD) as u32 as u64;

fn run(accepted: &[Layer]) -> Result<Report, RunError> {
    lazaret::init();
    let mut builder = Host::builder().worker_exe(env!("CARGO_BIN_EXE_lazaret-redteam"));
    for layer in accepted {
        builder = builder.accept_missing(*layer);
    }
    builder.build().expect("a host").program(PROGRAM).run()
}

/// The layer that an error names, and its words.
fn named(error: &RunError) -> (Layer, String) {
    match error {
        RunError::Compile(CompileError::Worker(WorkerError::Layer { layer, message }))
        | RunError::Compile(CompileError::Worker(WorkerError::Launcher(LauncherError::Layer {
            layer,
            message,
        })))
        | RunError::Worker(WorkerError::Layer { layer, message })
        | RunError::Launcher(LauncherError::Layer { layer, message }) => (*layer, message.clone()),
        other => panic!("no layer's error: {other:?}"),
    }
}

fn is_refused(layer: Layer, accepted: &[Layer]) {
    let error = run(accepted).expect_err("a layer is missing");
    let (found, message) = named(&error);
    assert_eq!(found, layer, "{message}");
    assert!(message.contains(layer.remedy()), "the fix: {message}");
    assert!(
        error
            .to_string()
            .contains(&format!("--accept-missing {layer}")),
        "the way round: {error}"
    );
}

/// The receipt says that these layers are missing, and no other.
fn misses(report: &Report, layers: &[Layer]) {
    for entry in &report.receipt.as_ref().expect("a receipt").layers {
        let missing = matches!(entry.state, State::Missing(_));
        assert_eq!(missing, layers.contains(&entry.layer), "{entry:?}");
    }
}

/// Runs the test `name` of this binary once for every lack.
fn in_children(name: &str, lacks: &[(&str, Layer, &[Refused])]) {
    let me = std::env::current_exe().expect("this test");
    for (lack, ..) in lacks {
        let done = Command::new(&me)
            .args(["--exact", name, "--nocapture"])
            .env(LACK, lack)
            .output()
            .expect("a child");
        assert!(
            done.status.success(),
            "{lack}: {}\n{}\n{}",
            done.status,
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

fn lack(of: &[(&str, Layer, &'static [Refused])]) -> Option<(Layer, &'static [Refused])> {
    let wanted = std::env::var(LACK).ok()?;
    let (_, layer, calls) = of.iter().find(|(name, ..)| *name == wanted)?;
    Some((*layer, calls))
}

#[test]
fn a_missing_layer_is_refused_and_runs_when_accepted() {
    let Some((layer, calls)) = lack(LACKS) else {
        return in_children("a_missing_layer_is_refused_and_runs_when_accepted", LACKS);
    };
    // Before the filter nothing is missing but what this kernel is too old for.
    let before = older_kernels::missing_layers();
    misses(&run(before).expect("the wall that is here"), before);
    refuse(calls);
    let others: Vec<Layer> = before
        .iter()
        .copied()
        .filter(|other| *other != layer)
        .collect();
    is_refused(layer, &others);
    // Accepting another layer is not accepting this one.
    let another = match layer {
        Layer::Landlock => Layer::Mdwe,
        _ => Layer::Landlock,
    };
    is_refused(layer, &[others.clone(), vec![another]].concat());
    let all = [others, vec![layer]].concat();
    let report = run(&all).expect("it runs without");
    assert_eq!(report.verdict, Verdict::Exited);
    misses(&report, &all);
}

#[test]
fn without_namespaces_nothing_starts_and_the_error_names_them() {
    let Some((layer, calls)) = lack(NEEDED) else {
        return in_children(
            "without_namespaces_nothing_starts_and_the_error_names_them",
            NEEDED,
        );
    };
    let missing = older_kernels::missing_layers();
    let report = run(missing).expect("the wall that is here");
    assert_eq!(report.verdict, Verdict::Exited);
    refuse(calls);
    let error = run(missing).expect_err("no launcher");
    let (found, message) = named(&error);
    assert_eq!(found, layer);
    assert!(message.contains(layer.remedy()), "the fix: {message}");
}
