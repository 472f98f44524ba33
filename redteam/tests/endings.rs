//! Promise: no end of host, launcher or worker leaves anything behind, and none
//! costs a tenant more than the call that it came into.
//!
//! Each test runs in children of this binary, one as root (if this is root)
//! and one as an ordinary user, so that each has one host.
#![cfg(target_arch = "x86_64")]

mod process;
mod view;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use lazaret::{CallError, Ending, Host, Tenant};
use lazaret_redteam::{ATTACK, TENANT};
use process::{Child, end_of, found, kill, pidfd};
use view::{Polling, builder, host, is_locked, only_worker};

/// Takes the tenant's worker, the program's and both launchers along.
#[test]
fn a_killed_host_leaves_nothing_behind() {
    const NAME: &str = "a_killed_host_leaves_nothing_behind";
    if process::is_child() {
        let host = host();
        let tenant = host.install("tenant", TENANT, b"").expect("a tenant");
        tenant.update("add", &1u64.to_le_bytes()).expect("a call");
        let _polling = Polling::start(&host, Some(false));
        let pids: Vec<String> = found("lazaret:").iter().map(ToString::to_string).collect();
        println!("PIDS {}", pids.join(" "));
        std::io::stdout().flush().expect("a flush");
        // Until this process is killed, or the parent gives up.
        let _ = std::io::stdin().read(&mut [0]);
        panic!("nobody killed this host");
    }
    for user in process::users() {
        let mut child = Child::start(NAME, user);
        let pids = child.line("PIDS ");
        let pids: Vec<i32> = pids
            .split(' ')
            .map(|pid| pid.trim().parse().expect("a number"))
            .collect();
        // Two launchers, one of them for the directory, and two workers.
        assert_eq!(pids.len(), 4, "{pids:?}");
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

/// A tenant whose host function ends the launcher in the middle of a call.
fn with_a_fragile_launcher() -> (Host, Tenant) {
    let launcher = Arc::new(AtomicI32::new(0));
    let victim = launcher.clone();
    let host = builder()
        .host_function("end_the_launcher", 64, 64, move |_| {
            let worker = pidfd(only_worker());
            kill(victim.load(SeqCst));
            assert!(
                end_of(&worker, Duration::from_secs(2)),
                "the worker outlived its launcher"
            );
            Ok(Vec::new())
        })
        .build()
        .expect("a host");
    let tenant = host.install("tenant", TENANT, b"").expect("a tenant");
    tenant.update("add", &5u64.to_le_bytes()).expect("a call");
    launcher.store(host.launcher_pid().expect("a launcher"), SeqCst);
    (host, tenant)
}

#[test]
fn a_killed_launcher_fails_the_call_and_the_next_one_works() {
    process::as_each_user(
        "a_killed_launcher_fails_the_call_and_the_next_one_works",
        || {
            let (host, tenant) = with_a_fragile_launcher();
            let before = host.launcher_pid().expect("a launcher");
            match tenant.update(ATTACK, b"host_function 0") {
                Err(CallError::WorkerEnded(Ending::LauncherEnded)) => {}
                other => panic!("{other:?}"),
            }
            let reply = tenant
                .update("add", &1u64.to_le_bytes())
                .expect("the next call");
            assert_eq!(reply.bytes, 6u64.to_le_bytes());
            let after = host.launcher_pid().expect("a launcher");
            assert_ne!(before, after);

            // While nobody calls: the next call works, or fails with a reason and
            // the one after works.
            let gone = pidfd(after);
            kill(after);
            assert!(end_of(&gone, Duration::from_secs(2)));
            if let Err(error) = tenant.update("add", &0u64.to_le_bytes()) {
                assert!(
                    matches!(error, CallError::WorkerEnded(_) | CallError::Worker(_)),
                    "{error:?}"
                );
            }
            let reply = tenant.query("get", b"").expect("the call after");
            assert_eq!(reply.bytes, 6u64.to_le_bytes());
            is_locked(only_worker());
        },
    );
}

/// A worker killed from outside in the middle of a call is no break-out, and
/// costs the call only.
#[test]
fn a_killed_worker_fails_the_call_and_the_next_one_works() {
    process::as_each_user(
        "a_killed_worker_fails_the_call_and_the_next_one_works",
        || {
            let host = builder()
                .host_function("end_the_worker", 64, 64, |_| {
                    let pid = only_worker();
                    let worker = pidfd(pid);
                    kill(pid);
                    assert!(end_of(&worker, Duration::from_secs(2)));
                    Ok(Vec::new())
                })
                .build()
                .expect("a host");
            let tenant = host.install("tenant", TENANT, b"").expect("a tenant");
            tenant.update("add", &5u64.to_le_bytes()).expect("a call");
            match tenant.update(ATTACK, b"host_function 0") {
                // Killed, where a group tells that it was not for memory.
                Err(CallError::WorkerEnded(Ending::Killed | Ending::Signal(libc::SIGKILL))) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(
                tenant.query("get", b"").expect("the next call").bytes,
                5u64.to_le_bytes()
            );
        },
    );
}
