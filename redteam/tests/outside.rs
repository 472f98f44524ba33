//! Promise: seen from outside, through `/proc`, a worker of each kind is what
//! its receipt says, whoever runs the host; and no end of host or launcher
//! leaves anything behind.
//!
//! Each test runs in children of this binary, one as root (if this is root)
//! and one as an ordinary user, so that each has one host with one worker.
#![cfg(target_arch = "x86_64")]

mod process;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use lazaret::{
    CallError, CompileError, Ending, Host, Input, Output, Report, RunError, Tenant, Verdict,
};
use lazaret_redteam::{ATTACK, TENANT};
use process::{Child, WORKER_EXE, end_of, found, kill, pidfd, until};

const POLL: &str = include_str!("../../tests/fixtures/wat/poll.wat");

/// The layers that are namespaces, as `/proc/PID/ns` names them. A time
/// namespace is not among them: it would only hide the host's uptime, which
/// the vDSO's clocks tell anyway.
const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

fn data() -> PathBuf {
    std::env::temp_dir().join("data")
}

fn host() -> Host {
    builder().build().expect("a host")
}

fn builder() -> lazaret::Builder {
    lazaret::init();
    Host::builder()
        .worker_exe(std::env::var_os(WORKER_EXE).expect("set by the parent"))
        .data_dir(data())
        .relaxed_durability()
}

fn text(pid: i32, file: &str) -> String {
    String::from_utf8_lossy(
        &fs::read(format!("/proc/{pid}/{file}"))
            .unwrap_or_else(|error| panic!("/proc/{pid}/{file}: {error}")),
    )
    .into_owned()
}

/// What is open, by number: what the link leads to, without its inode number.
fn open(pid: i32) -> BTreeMap<i32, String> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .map(|entry| {
            let entry = entry.expect("a descriptor");
            let target = fs::read_link(entry.path())
                .expect("its target")
                .to_string_lossy()
                .into_owned();
            let kind = target
                .split_once(":[")
                .map_or(target.as_str(), |(kind, _)| kind)
                .to_owned();
            (
                entry
                    .file_name()
                    .to_string_lossy()
                    .parse()
                    .expect("a number"),
                kind,
            )
        })
        .collect()
}

/// Everything that must be so, but for the descriptors.
fn is_locked(pid: i32) {
    let status = text(pid, "status");
    let field = |name: &str| {
        let found = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found
            .unwrap_or_else(|| panic!("no {name} in {status}"))
            .trim()
            .to_owned()
    };
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
    }
    assert_eq!(field("Threads"), "1");
    assert_eq!(
        fs::read_dir(format!("/proc/{pid}/task"))
            .expect("its threads")
            .count(),
        1
    );
    assert!(
        field("Uid").split_whitespace().all(|uid| uid != "0"),
        "uid on the host: {}",
        field("Uid")
    );
    assert!(
        field("Gid").split_whitespace().all(|gid| gid != "0"),
        "gid on the host: {}",
        field("Gid")
    );
    assert_eq!(text(pid, "environ"), "");
    for name in NAMESPACES {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{name}")).expect("a namespace");
        assert_ne!(of(&pid.to_string()), of("self"), "namespace {name}");
    }
    let writable_code: Vec<String> = text(pid, "maps")
        .lines()
        .filter(|line| {
            line.split(' ')
                .nth(1)
                .is_some_and(|flags| flags.contains('w') && flags.contains('x'))
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(writable_code, Vec::<String>::new());
    assert_eq!(
        fs::read_dir(format!("/proc/{pid}/root/"))
            .expect("its root")
            .count(),
        0,
        "its root"
    );
    let core = text(pid, "limits")
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .map(|line| line.split_whitespace().nth(5) == Some("0"));
    assert_eq!(core, Some(true), "core dumps");
}

fn only_worker() -> i32 {
    let workers = found("lazaret:worker");
    assert_eq!(workers.len(), 1, "{workers:?}");
    workers[0]
}

#[test]
fn a_tenant_s_worker_is_locked() {
    process::as_each_user("a_tenant_s_worker_is_locked", || {
        let host = host();
        let tenant = host.install("tenant", TENANT, b"").expect("a tenant");
        tenant.update("add", &1u64.to_le_bytes()).expect("a call");
        let pid = only_worker();
        assert_eq!(tenant.info().worker, Some(pid));
        is_locked(pid);
        assert_eq!(open(pid), BTreeMap::new());
        // After calls too.
        for _ in 0..100 {
            tenant.update("add", &1u64.to_le_bytes()).expect("a call");
        }
        assert_eq!(only_worker(), pid);
        is_locked(pid);
        assert_eq!(open(pid), BTreeMap::new());
    });
}

/// A program that waits for its input and a clock at once, while it does.
struct Polling {
    input: Option<OwnedFd>,
    run: std::thread::JoinHandle<Result<Report, RunError>>,
}

impl Polling {
    /// Starts it and waits until the clock has come first, twice.
    fn start(host: &Host, directory: Option<bool>) -> Self {
        let (input, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        let (read, output) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        let mut program = host
            .program(POLL)
            .stdin(Input::Descriptor(input))
            .stdout(Output::Descriptor(Arc::new(output)));
        if let Some(writable) = directory {
            let granted = std::env::temp_dir().join("granted");
            fs::create_dir_all(&granted).expect("a directory");
            program = program.directory(granted, "/granted", writable);
        }
        let run = std::thread::spawn(move || program.run());
        let mut printed = vec![0; 10];
        fs::File::from(read.try_clone().expect("the pipe"))
            .read_exact(&mut printed)
            .unwrap_or_else(|error| {
                panic!("the program said nothing: {error}");
            });
        assert_eq!(printed, b"tick\ntick\n");
        // Its ticks go nowhere from now on, or the pipe would fill.
        std::thread::spawn(move || std::io::copy(&mut fs::File::from(read), &mut std::io::sink()));
        Self {
            input: Some(write),
            run,
        }
    }

    /// Ends its input, and it.
    fn end(mut self) {
        drop(self.input.take());
        let report = self.run.join().expect("the thread").expect("the run");
        assert_eq!(
            (report.verdict, report.exit_code),
            (Verdict::Exited, 0),
            "{:?}",
            report.detail
        );
    }
}

fn program_is_locked(directory: Option<bool>) {
    let host = host();
    let polling = Polling::start(&host, directory);
    let pid = only_worker();
    is_locked(pid);
    let mut open = open(pid);
    for number in 0..3 {
        assert_eq!(
            open.remove(&number).as_deref(),
            Some("pipe"),
            "descriptor {number}"
        );
    }
    let (code, others): (Vec<_>, Vec<_>) = open
        .into_iter()
        .partition(|(_, kind)| kind.starts_with("/memfd:lazaret-code"));
    assert!(code.len() <= 1, "{code:?}");
    assert_eq!(others.len(), usize::from(directory.is_some()), "{others:?}");
    assert!(
        others.iter().all(|(_, kind)| kind.starts_with('/')),
        "{others:?}"
    );
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
        let open = open(pid);
        assert_eq!(open.keys().copied().collect::<Vec<_>>(), [0, 1], "{open:?}");
        assert!(
            open.values()
                .all(|kind| kind.starts_with("/memfd:lazaret-code")),
            "{open:?}"
        );
        // It was still at work.
        kill(pid);
        match run.join().expect("the thread") {
            Err(RunError::Compile(CompileError::Ended(Ending::Signal(libc::SIGKILL)))) => {}
            other => panic!("{other:?}"),
        }
    });
}

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
                Err(CallError::WorkerEnded(Ending::Signal(libc::SIGKILL))) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(
                tenant.query("get", b"").expect("the next call").bytes,
                5u64.to_le_bytes()
            );
        },
    );
}
