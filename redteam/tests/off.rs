//! Promise: a layer that is left out on purpose is off, and said to be; all others
//! hold as ever; and whatever is left out, no worker outlives its launcher or its
//! host.
//!
//! Each test runs in children of this binary, one as root (if this is root) and
//! one as an ordinary user.
#![cfg(target_arch = "x86_64")]

#[path = "../../tests/outer_filter.rs"]
mod outer_filter;
mod process;
mod view;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use lazaret::wall::receipt::{Receipt, State};
use lazaret::wall::{Grade, Layer, Off};
use lazaret::{BuildError, CallError, CallOptions, Ending, Host, Output, TenantError, Verdict};
use lazaret_redteam::{ATTACK, TENANT};
use outer_filter::refuse;
use process::{Child, end_of, found, kill, pidfd, until};
use view::{builder, older_kernels, only_worker, text};

/// A host without these layers, and its one tenant, which has been called.
fn without(layers: &[Layer]) -> (Host, lazaret::Tenant) {
    let host = layers
        .iter()
        .fold(builder(), |builder, layer| builder.without(*layer))
        .build()
        .expect("a host");
    let tenant = match host.install("tenant", TENANT, b"") {
        Err(TenantError::Exists(_)) => host.tenant("tenant").expect("the tenant"),
        other => other.expect("a tenant"),
    };
    tenant.update("add", &1u64.to_le_bytes()).expect("a call");
    (host, tenant)
}

/// What a receipt says is what was asked for, and all else is as on any host.
fn says(receipt: &Receipt, off: Off) {
    let missing = older_kernels::missing_layers();
    for entry in &receipt.layers {
        match &entry.state {
            State::Off(why) => assert_eq!(Some(why.clone()), off.why(entry.layer), "{entry:?}"),
            State::Missing(_) => assert!(missing.contains(&entry.layer), "{entry:?}"),
            State::Verified(_) | State::Applied(_) => {
                assert!(!off.has(entry.layer), "{entry:?}");
            }
        }
    }
    assert_eq!(receipt.layers.len(), Layer::ALL.len());
    let gone: Vec<Layer> = off.layers().chain(missing.iter().copied()).collect();
    let evidence = !off.has(Layer::Seccomp);
    assert_eq!(receipt.grade, lazaret::wall::grade::grade(&gone, evidence));
    assert_eq!(receipt.filter.is_empty(), off.has(Layer::Seccomp));
}

/// What `/proc` shows of a worker, where it shows it at all.
fn is_off_in(pid: i32, off: Off) {
    let status = text(pid, "status");
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
            .unwrap_or_else(|| panic!("no {name}"))
    };
    let own = |name: &str| {
        let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{name}")).expect("a link");
        of(&pid.to_string()) != of("self")
    };
    let root = std::fs::read_dir(format!("/proc/{pid}/root/")).expect("its root");
    let data = text(pid, "limits")
        .lines()
        .any(|line| line.starts_with("Max data size") && line.contains("unlimited"));
    for (layer, on) in [
        (Layer::UserNamespace, own("user")),
        (Layer::PidNamespace, own("pid")),
        (Layer::MountNamespace, own("mnt")),
        (Layer::NetworkNamespace, own("net")),
        (Layer::IpcNamespace, own("ipc")),
        (Layer::UtsNamespace, own("uts")),
        (Layer::EmptyRoot, root.count() == 0),
        (Layer::NoNewPrivs, field("NoNewPrivs") == "1"),
        (Layer::Seccomp, field("Seccomp") == "2"),
        (Layer::Rlimits, !data),
    ] {
        assert_eq!(on, !off.has(layer), "{layer} in a worker without {off}");
    }
    // What it holds in a user namespace of its own, unless they are dropped.
    let effective = u64::from_str_radix(&field("CapEff"), 16).expect("a number");
    if !off.has(Layer::Capabilities) || off.has(Layer::UserNamespace) {
        assert_eq!(effective, 0, "{off}");
    } else {
        assert_ne!(effective, 0, "{off}");
    }
    assert!(
        field("Uid").split_whitespace().all(|uid| uid != "0"),
        "root on the host: {}",
        field("Uid")
    );
}

#[test]
fn every_layer_can_be_left_out_alone_and_is_said_to_be() {
    if older_kernels::needs_namespaces() {
        return;
    }
    process::as_each_user(
        "every_layer_can_be_left_out_alone_and_is_said_to_be",
        || {
            for layer in Off::removable() {
                let off = Off::new(&[layer]).expect("it is removable");
                let (host, tenant) = without(&[layer]);
                says(&tenant.receipt().expect("a receipt"), off);
                is_off_in(only_worker(), off);
                let printed = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
                let granted = std::env::temp_dir().join("granted");
                std::fs::create_dir_all(&granted).expect("a directory");
                let report = host
                    .program(r#"(module (memory (export "memory") 1) (func (export "_start")))"#)
                    .directory(&granted, "/granted", true)
                    .stdout(Output::Buffer(printed))
                    .run()
                    .unwrap_or_else(|error| panic!("a program without {layer}: {error}"));
                assert_eq!(report.verdict, Verdict::Exited, "without {layer}");
                says(report.receipt.as_ref().expect("a receipt"), off);
            }
        },
    );
}

#[test]
fn all_that_can_be_left_out_can_be_at_once() {
    if older_kernels::needs_namespaces() {
        return;
    }
    process::as_each_user("all_that_can_be_left_out_can_be_at_once", || {
        let all: Vec<Layer> = Off::removable().collect();
        let off = Off::new(&all).expect("they are removable");
        let (_host, tenant) = without(&all);
        let receipt = tenant.receipt().expect("a receipt");
        says(&receipt, off);
        assert_eq!(receipt.grade, Grade::D);
        is_off_in(only_worker(), off);
        // It counts on, and commits.
        for sum in 2..10u64 {
            let reply = tenant.update("add", &1u64.to_le_bytes()).expect("a call");
            assert_eq!(reply.bytes, sum.to_le_bytes());
        }
    });
}

#[test]
fn what_can_not_be_left_out_is_an_error() {
    lazaret::init();
    for layer in [Layer::Environment, Layer::Descriptors] {
        match Host::builder().without(layer).build() {
            Err(BuildError::NotRemovable(error)) => assert_eq!(error.layer, layer),
            other => panic!("{other:?}"),
        }
    }
}

/// A grade that is demanded is demanded of a wall with holes, too.
#[test]
fn a_demanded_grade_holds_against_what_is_left_out() {
    if older_kernels::needs_namespaces() {
        return;
    }
    process::as_each_user("a_demanded_grade_holds_against_what_is_left_out", || {
        let host = builder()
            .without(Layer::Seccomp)
            .require_grade(Grade::B)
            .build()
            .expect("a host");
        let error = host.install("tenant", TENANT, b"").expect_err("no tenant");
        let text = error.to_string();
        assert!(
            text.contains("grade C") && text.contains("on purpose"),
            "{text}"
        );
    });
}

/// Nothing that a worker says takes a layer off: one that says that it could not
/// put on what the host looks for is believed only where that was accepted.
#[test]
fn a_layer_that_is_on_stays_on_beside_one_that_is_off() {
    if older_kernels::needs_namespaces() {
        return;
    }
    process::as_each_user("a_layer_that_is_on_stays_on_beside_one_that_is_off", || {
        let (_host, tenant) = without(&[Layer::Landlock]);
        // seccomp is on: a forbidden call kills and is told.
        let options = CallOptions::default();
        match tenant.update_with(ATTACK, b"fork", &options) {
            Err(CallError::WorkerEnded(Ending::Violation(violation))) => {
                assert!(violation.call.is_some(), "{violation:?}");
            }
            other => panic!("{other:?}"),
        }
    });
}

/// The layers of which one is not there in each of the next tests.
const WITHOUT_PIDS: &[&[Layer]] = &[&[Layer::PidNamespace], &[Layer::UserNamespace]];

#[test]
fn without_a_pid_namespace_a_killed_host_leaves_nothing_behind() {
    if older_kernels::needs_namespaces() {
        return;
    }
    const NAME: &str = "without_a_pid_namespace_a_killed_host_leaves_nothing_behind";
    if process::is_child() {
        let hosts: Vec<_> = WITHOUT_PIDS
            .iter()
            .map(|layers| {
                let data = std::env::temp_dir().join(layers[0].name());
                let host = builder()
                    .without(layers[0])
                    .data_dir(data)
                    .build()
                    .expect("a host");
                let tenant = host.install("tenant", TENANT, b"").expect("a tenant");
                tenant.update("add", &1u64.to_le_bytes()).expect("a call");
                (host, tenant)
            })
            .collect();
        let pids: Vec<String> = found("lazaret:").iter().map(ToString::to_string).collect();
        println!("PIDS {}", pids.join(" "));
        std::io::stdout().flush().expect("a flush");
        // Until this process is killed, or the parent gives up.
        let _ = std::io::stdin().read(&mut [0]);
        drop(hosts);
        panic!("nobody killed this host");
    }
    for user in process::users() {
        let mut child = Child::start(NAME, user);
        let pids: Vec<i32> = child
            .line("PIDS ")
            .split(' ')
            .map(|pid| pid.trim().parse().expect("a number"))
            .collect();
        assert_eq!(pids.len(), 2 * WITHOUT_PIDS.len(), "{pids:?}");
        let pidfds: Vec<OwnedFd> = pids.iter().map(|pid| pidfd(*pid)).collect();
        child.kill();
        for (pid, pidfd) in pids.iter().zip(pidfds) {
            assert!(
                end_of(&pidfd, Duration::from_secs(2)),
                "process {pid} is still there"
            );
        }
    }
}

#[test]
fn without_a_pid_namespace_a_killed_launcher_leaves_nothing_behind() {
    if older_kernels::needs_namespaces() {
        return;
    }
    process::as_each_user(
        "without_a_pid_namespace_a_killed_launcher_leaves_nothing_behind",
        || {
            for layers in WITHOUT_PIDS {
                let (host, tenant) = without(layers);
                let worker = pidfd(only_worker());
                kill(host.launcher_pid().expect("a launcher"));
                assert!(
                    end_of(&worker, Duration::from_secs(2)),
                    "the worker outlived its launcher, without {layers:?}"
                );
                // The next call works, or fails with a reason and the one after works.
                if let Err(error) = tenant.update("add", &0u64.to_le_bytes()) {
                    assert!(
                        matches!(error, CallError::WorkerEnded(_) | CallError::Worker(_)),
                        "{error:?}"
                    );
                }
                tenant.update("add", &0u64.to_le_bytes()).expect("a call");
                let worker = pidfd(only_worker());
                drop((tenant, host));
                assert!(end_of(&worker, Duration::from_secs(2)), "{layers:?}");
            }
        },
    );
}

/// Without filter and PID namespace a worker can start others. They end with it.
#[test]
fn what_a_worker_has_started_ends_with_it() {
    if older_kernels::needs_namespaces() {
        return;
    }
    process::as_each_user("what_a_worker_has_started_ends_with_it", || {
        let layers = [Layer::PidNamespace, Layer::Seccomp, Layer::Rlimits];
        let host = layers
            .iter()
            .fold(builder(), |builder, layer| builder.without(*layer))
            .cgroups(|options| options.mode = lazaret::CgroupMode::Off)
            .build()
            .expect("a host");
        let tenant = host.install("tenant", TENANT, b"").expect("a tenant");
        tenant.update("add", &1u64.to_le_bytes()).expect("a call");
        let reply = tenant.update(ATTACK, b"drill fork_bomb").expect("the bomb");
        let text = String::from_utf8_lossy(&reply.bytes).into_owned();
        let pids: Vec<i32> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        assert!(pids.len() > 8, "{text}");
        for pid in &pids {
            assert!(Path::new(&format!("/proc/{pid}")).exists(), "{text}");
        }
        kill(only_worker_over(&pids));
        until("all that it had started is gone", || {
            pids.iter()
                .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        });
    });
}

/// The worker, of which the others are children.
fn only_worker_over(children: &[i32]) -> i32 {
    let mut workers = found("lazaret:worker");
    workers.retain(|pid| !children.contains(pid));
    assert_eq!(workers.len(), 1, "{workers:?}");
    workers[0]
}

/// What a container's profile refuses, Docker's for one.
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u32 as u64;

#[test]
fn without_namespaces_everything_runs_where_a_container_refuses_them() {
    process::as_each_user(
        "without_namespaces_everything_runs_where_a_container_refuses_them",
        || {
            refuse(&[
                (libc::SYS_clone3, None, libc::ENOSYS),
                (libc::SYS_unshare, None, libc::EPERM),
                (libc::SYS_setns, None, libc::EPERM),
                (libc::SYS_mount, None, libc::EPERM),
                (libc::SYS_pivot_root, None, libc::EPERM),
                (libc::SYS_open_tree, None, libc::EPERM),
                (libc::SYS_move_mount, None, libc::EPERM),
                (libc::SYS_userfaultfd, None, libc::EPERM),
            ]);
            for bit in (0..64).map(|bit| 1u64 << bit) {
                if NAMESPACES & bit != 0 {
                    outer_filter::refuse_flag(libc::SYS_clone, 0, bit, libc::EPERM);
                }
            }
            let (_host, tenant) = without(&[Layer::UserNamespace]);
            let off = Off::new(&[Layer::UserNamespace]).expect("it is removable");
            let receipt = tenant.receipt().expect("a receipt");
            says(&receipt, off);
            assert_eq!(receipt.grade, Grade::C);
            is_off_in(only_worker(), off);
        },
    );
}
