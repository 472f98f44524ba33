//! Promise: seen from outside, through `/proc`, a worker of each kind is what
//! its receipt says, whoever runs the host, and has open what `lazaret audit`
//! prints.
//!
//! Each test runs in children of this binary, one as root (if this is root)
//! and one as an ordinary user, so that each has one host with one worker.
#![cfg(target_arch = "x86_64")]

mod process;
mod view;

use std::fmt::Write as _;
use std::fs;

use lazaret::wall::Kind;
use lazaret::wall::policy::{ProgramRights, Uses};
use lazaret::{CompileError, Ending, RunError, WorkerError};
use lazaret_redteam::TENANT;
use process::{found, kill, until};
use view::{Polling, has_open_what_is_listed, host, is_locked, only_worker};

#[test]
fn a_tenant_s_worker_is_locked() {
    process::as_each_user("a_tenant_s_worker_is_locked", || {
        let host = host();
        let tenant = host.install("tenant", TENANT, b"").expect("a tenant");
        tenant.update("add", &1u64.to_le_bytes()).expect("a call");
        let pid = only_worker();
        assert_eq!(tenant.info().worker, Some(pid));
        is_locked(pid);
        has_open_what_is_listed(pid, Kind::Tenant, 0);
        // After calls too.
        for _ in 0..100 {
            tenant.update("add", &1u64.to_le_bytes()).expect("a call");
        }
        assert_eq!(only_worker(), pid);
        is_locked(pid);
        has_open_what_is_listed(pid, Kind::Tenant, 0);
    });
}

fn program_is_locked(directory: Option<bool>) {
    let host = host();
    let polling = Polling::start(&host, directory);
    let pid = only_worker();
    is_locked(pid);
    let grants = ProgramRights {
        directories: directory.is_some(),
        writable: directory == Some(true),
        // Its descriptors don't depend on these.
        uses: Uses::ALL,
    };
    let directories = usize::from(directory.is_some());
    has_open_what_is_listed(pid, Kind::Program(grants), directories);
    polling.end();
}

#[test]
fn a_program_s_worker_is_locked_while_it_polls() {
    process::as_each_user("a_program_s_worker_is_locked_while_it_polls", || {
        program_is_locked(None)
    });
}

#[test]
fn a_program_s_worker_is_locked_with_a_directory_to_read() {
    process::as_each_user(
        "a_program_s_worker_is_locked_with_a_directory_to_read",
        || program_is_locked(Some(false)),
    );
}

#[test]
fn a_program_s_worker_is_locked_with_a_directory_to_write() {
    process::as_each_user(
        "a_program_s_worker_is_locked_with_a_directory_to_write",
        || program_is_locked(Some(true)),
    );
}

/// A module that takes seconds to compile.
fn large_module() -> String {
    let mut module = String::from("(module (memory (export \"memory\") 1)\n");
    for function in 0..3000 {
        write!(
            module,
            "(func $f{function} (param i64) (result i64) local.get 0"
        )
        .expect("text");
        for step in 0..150 {
            write!(
                module,
                " i64.const {} i64.xor local.get 0 i64.const {} i64.rotl i64.mul local.tee 0",
                function * 31 + step,
                step % 63
            )
            .expect("text");
        }
        module.push_str(")\n");
    }
    module.push_str("(func (export \"_start\")))");
    module
}

#[test]
fn a_compiler_is_locked_while_it_compiles() {
    process::as_each_user("a_compiler_is_locked_while_it_compiles", || {
        let host = host();
        let program = host.program(large_module());
        let run = std::thread::spawn(move || program.run());
        // Locked is when the second filter is on.
        let filters = |who: &str| -> u32 {
            let status = fs::read_to_string(format!("/proc/{who}/status")).unwrap_or_default();
            status
                .lines()
                .find_map(|line| line.strip_prefix("Seccomp_filters:")?.trim().parse().ok())
                .unwrap_or(0)
        };
        let wanted = filters("self") + 2;
        let mut pid = 0;
        until("a locked compiler", || {
            pid = found("lazaret:worker").first().copied().unwrap_or(0);
            pid != 0 && filters(&pid.to_string()) >= wanted
        });
        is_locked(pid);
        has_open_what_is_listed(pid, Kind::Compiler, 0);
        // It was still at work.
        kill(pid);
        match run.join().expect("the thread") {
            Err(RunError::Compile(CompileError::Ended(
                Ending::Killed | Ending::Signal(libc::SIGKILL),
            ))) => {}
            // The host had not got round to looking at it.
            Err(RunError::Compile(CompileError::Worker(WorkerError::Ended(
                Ending::Killed | Ending::Signal(libc::SIGKILL),
            )))) => {}
            other => panic!("{other:?}"),
        }
    });
}
