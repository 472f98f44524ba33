//! Promise: a crash is one tenant's error. Workers, launchers and compilers are
//! killed at random, up to a hundred a second, under load, while workers also come and go
//! by themselves: no wrong answer, no lost commit, and nothing is left behind.
//!
//! It runs for some seconds; this has it run for ten minutes and prints its counts:
//! `LAZARET_CHAOS_SECONDS=600 cargo nextest run --release --profile long -p lazaret --test chaos`.

mod harness;
#[path = "histories/processes.rs"]
mod processes;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use lazaret::{CallError, Host, RunError, TenantError};
use processes::{argv0, descendants};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Tenants that are called.
const TENANTS: u64 = 24;
/// Threads that call.
const CALLERS: u64 = 3;
/// Between two kills.
const PACE: Duration = Duration::from_millis(10);

/// A number in the heap; `add` makes it larger by one.
fn module(salt: u64) -> String {
    format!(
        r#"
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (data (i32.const 64) "{salt}")
  (func $answer (call $append (i32.const 0) (i32.const 8)) (call $reply))
  (func (export "canister_update add")
    (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
    (call $answer))
  (func (export "canister_query get") (call $answer)))
"#
    )
}

fn name(tenant: u64) -> String {
    format!("tenant-{tenant}")
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What this process has that could be left behind.
#[derive(Debug)]
struct Held {
    processes: usize,
    descriptors: usize,
    shared_mappings: usize,
    groups: usize,
}

impl Held {
    /// Whether nothing is more. Something of an earlier host's may have been there yet when
    /// the other was counted.
    fn is_within(&self, before: &Self) -> bool {
        self.processes <= before.processes
            && self.descriptors <= before.descriptors
            && self.shared_mappings <= before.shared_mappings
            && self.groups <= before.groups
    }
}

fn held() -> Held {
    let own = std::process::id() as i32;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let shared = |line: &&str| {
        line.split(' ')
            .nth(1)
            .is_some_and(|flags| flags.ends_with('s'))
    };
    Held {
        processes: descendants(own).len(),
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        shared_mappings: maps.lines().filter(shared).count(),
        groups: groups(own),
    }
}

/// Control groups that this process has made, in all hierarchies that can be seen.
fn groups(pid: i32) -> usize {
    fn count(directory: &Path, mark: &str, depth: u32) -> usize {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories
            .map(|entry| {
                let name = entry.file_name();
                let ours = usize::from(name.to_string_lossy().contains(mark));
                let below = match depth {
                    0 => 0,
                    _ => count(&entry.path(), mark, depth - 1),
                };
                ours + below
            })
            .sum()
    }
    count(Path::new("/sys/fs/cgroup"), &format!("-{pid}-"), 5)
}

/// Kills somebody of these; what it was.
fn kill_one(random: &mut Random) -> Option<String> {
    let below = descendants(std::process::id() as i32);
    let mut chosen: Vec<(i32, String)> = below.into_iter().map(|pid| (pid, argv0(pid))).collect();
    chosen.retain(|(_, name)| name.starts_with("lazaret:"));
    // A launcher takes all its workers along: seldom.
    if random.below(50) != 0 {
        chosen.retain(|(_, name)| name != "lazaret:launcher");
    }
    if chosen.is_empty() {
        return None;
    }
    let at = random.below(chosen.len() as u64) as usize;
    let (pid, name) = chosen.swap_remove(at);
    // By a descriptor, and looked at again: the number may be somebody else's by now.
    let pid = rustix::process::Pid::from_raw(pid)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    if argv0(pid.as_raw_nonzero().get()) != name {
        return None;
    }
    pidfd_send_signal(process, Signal::KILL).ok()?;
    Some(name)
}

/// Whether an error is one that a kill explains; nothing has changed then.
fn explained(error: &CallError) -> bool {
    use CallError::{Compile, HeldBack, Worker, WorkerEnded};
    error.is_retryable() && matches!(error, Compile(_) | HeldBack(_) | Worker(_) | WorkerEnded(_))
}

fn host(directory: &Path) -> Host {
    harness::builder()
        .data_dir(directory)
        .cache_dir(directory.join("cache"))
        .pool(|pool| {
            pool.idle = Some(Duration::from_millis(100));
            pool.workers = 16.try_into().ok();
        })
        .build()
        .unwrap()
}

fn heavy_kills_at_random_cost_one_call_each_and_nothing_is_left() {
    let seconds = std::env::var("LAZARET_CHAOS_SECONDS")
        .map_or(8, |text| text.parse().expect("LAZARET_CHAOS_SECONDS"));
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // What is made once for each process is there before.
    host(&data).program(harness::wat("hello")).run().unwrap();
    let before = held();

    let host = host(&data);
    let acknowledged: Vec<Mutex<u64>> = (0..TENANTS).map(|_| Mutex::new(0)).collect();
    for tenant in 0..TENANTS {
        host.install(&name(tenant), module(tenant % 3), &[])
            .unwrap();
    }
    let (calls, failed, compiled) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let killed = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let (mut random, mut killed) = (Random(1), BTreeMap::<String, u64>::new());
            let mut next = Instant::now();
            while !stop.load(SeqCst) {
                // One that was late is followed at once.
                next += PACE;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                if let Some(name) = kill_one(&mut random) {
                    *killed.entry(name).or_default() += 1;
                }
            }
            killed
        });
        for caller in 0..CALLERS {
            let (host, acknowledged, stop) = (&host, &acknowledged, &stop);
            let (calls, failed) = (&calls, &failed);
            scope.spawn(move || {
                let mut random = Random(100 + caller);
                while !stop.load(SeqCst) {
                    let tenant = random.below(TENANTS);
                    // Whoever has it locked knows what it must answer.
                    let mut known = acknowledged[tenant as usize].lock().unwrap();
                    let handle = host.tenant(&name(tenant)).unwrap();
                    let update = random.below(2) == 0;
                    let result = match update {
                        true => handle.update("add", &[]),
                        false => handle.query("get", &[]),
                    };
                    calls.fetch_add(1, SeqCst);
                    match result {
                        Ok(reply) => {
                            *known += u64::from(update);
                            assert_eq!(number(&reply.bytes), *known, "{}", name(tenant));
                        }
                        Err(error) => {
                            assert!(explained(&error), "{error:?}");
                            failed.fetch_add(1, SeqCst);
                        }
                    }
                }
            });
        }
        // Modules that nobody knows yet, so that compilers are killed too.
        let (host, stop, compiled) = (&host, &stop, &compiled);
        scope.spawn(move || {
            for salt in 1_000.. {
                if stop.load(SeqCst) {
                    return;
                }
                match host.install("new", module(salt), &[]) {
                    Ok(_) => {
                        compiled.fetch_add(1, SeqCst);
                        host.remove("new").unwrap();
                    }
                    Err(TenantError::Call { error, .. }) => {
                        assert!(explained(&error), "{error:?}");
                    }
                    Err(TenantError::Compile(error)) => {
                        assert!(error.is_retryable(), "{error:?}");
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        std::thread::sleep(Duration::from_secs(seconds));
        stop.store(true, SeqCst);
        killer.join().unwrap()
    });
    println!(
        "{} calls, of which {} failed; {} modules compiled; killed: {killed:?}; {}",
        calls.load(SeqCst),
        failed.load(SeqCst),
        compiled.load(SeqCst),
        host.pool()
    );
    let kills: u64 = killed.values().sum();
    assert!(kills > seconds * 20, "only {kills} were killed");
    assert!(calls.load(SeqCst) > kills, "hardly any call was made");
    assert!(compiled.load(SeqCst) > 0, "no module was ever compiled");

    // Nobody kills any more: one call may still find out that its worker is gone.
    let expected: Vec<u64> = acknowledged
        .iter()
        .map(|known| *known.lock().unwrap())
        .collect();
    let check = |host: &Host| {
        for (tenant, expected) in expected.iter().enumerate() {
            let handle = host.tenant(&name(tenant as u64)).unwrap();
            let reply = (0..4).find_map(|_| handle.query("get", &[]).ok()).unwrap();
            assert_eq!(number(&reply.bytes), *expected, "tenant {tenant}");
        }
    };
    check(&host);
    drop(host);
    let again = self::host(&data);
    check(&again);
    assert_eq!(again.tenants().unwrap().len() as u64, TENANTS);
    for tenant in 0..TENANTS {
        again.remove(&name(tenant)).unwrap();
    }
    drop(again);
    let left: Vec<_> = std::fs::read_dir(data.join("tenants"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    nothing_is_left(&before);
}

/// Waits until no more is held than before.
fn nothing_is_left(before: &Held) {
    let begin = Instant::now();
    loop {
        let after = held();
        if after.is_within(before) {
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "before {before:?}, after {after:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn whoever_is_killed_as_it_is_born_is_an_error_worth_another_try() {
    // What is made once for each process is there before.
    let hello = |host: &Host| host.program(harness::wat("hello")).run();
    hello(&harness::builder().build().unwrap()).unwrap();
    let before = held();
    let (stop, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(7);
            while !stop.load(SeqCst) && begin.elapsed() < Duration::from_secs(60) {
                // A launcher and a worker are born in some milliseconds.
                std::thread::sleep(Duration::from_micros(random.below(10_000)));
                let below = descendants(std::process::id() as i32);
                let Some(pid) = below.get(random.below(2) as usize) else {
                    continue;
                };
                // Gone by now, or it is one of this process's and nobody else's.
                if let Some(pid) = rustix::process::Pid::from_raw(*pid)
                    && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
                    && descendants(std::process::id() as i32).contains(&pid.as_raw_nonzero().get())
                {
                    let _ = pidfd_send_signal(process, Signal::KILL);
                }
            }
        });
        for _ in 0..300 {
            // Each has a launcher of its own.
            let host = harness::builder().build().unwrap();
            match hello(&host) {
                Ok(_) => {}
                Err(error @ (RunError::Launcher(_) | RunError::Worker(_))) => {
                    assert!(error.is_retryable(), "{error:?}");
                    failed.fetch_add(1, SeqCst);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        stop.store(true, SeqCst);
    });
    let failed = failed.load(SeqCst);
    println!("{failed} of 300 could not be run");
    assert!(failed > 10, "{failed}");
    nothing_is_left(&before);
}

fn a_launcher_that_was_not_needed_and_has_ended_is_replaced() {
    let before = held().processes;
    // Killed as it gets ready, and when it is.
    for pause in [0, 100] {
        let host = harness::builder().build().unwrap();
        // It gets ready for a module that is none.
        host.program(b"no module".to_vec()).run().unwrap_err();
        std::thread::sleep(Duration::from_millis(pause));
        let pids = host.launcher_pids();
        assert_eq!(pids.len(), 1);
        let pid = rustix::process::Pid::from_raw(pids[0]).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&process, Signal::KILL).unwrap();
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
        let report = host.program(harness::wat("hello")).run().unwrap();
        assert_eq!(report.exit_code, 0);
        drop(host);
        assert_eq!(held().processes, before);
    }
}

/// Kills every worker of this process.
fn kill_workers() {
    for pid in descendants(std::process::id() as i32) {
        if argv0(pid) == "lazaret:worker" {
            processes::kill(pid);
        }
    }
}

fn who_crashes_again_and_again_has_to_wait_and_nobody_else_does() {
    let data = tempfile::tempdir().unwrap();
    let host = harness::builder()
        .data_dir(data.path())
        .pool(|pool| pool.blanks = 0)
        .host_function("die", 8, 8, |_| {
            kill_workers();
            Ok(Vec::new())
        })
        .build()
        .unwrap();
    let crashing = r#"
(module
  (import "host" "die" (func $die (param i32 i32 i32 i32) (result i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func (export "canister_update die")
    (drop (call $die (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
    (call $reply))
  (func (export "canister_query fine") (call $reply)))
"#;
    let bad = host.install("bad", crashing, &[]).unwrap();
    let good = host.install("good", module(0), &[]).unwrap();
    good.sleep();
    let crash = || match bad.update("die", &[]) {
        Err(CallError::WorkerEnded(_)) => None,
        Err(CallError::HeldBack(held)) => Some(held),
        other => panic!("{other:?}"),
    };
    let mut crashes = 0;
    let held = loop {
        match crash() {
            None => crashes += 1,
            Some(held) => break held,
        }
        assert_eq!(number(&good.update("add", &[]).unwrap().bytes), crashes);
        // Its worker is nobody's to be killed.
        good.sleep();
    };
    assert_eq!(u64::from(held.crashes), crashes);
    assert!((4..20).contains(&crashes), "{crashes}");
    assert!(held.to_string().contains("try again"), "{held}");
    good.query("get", &[]).unwrap();
    good.sleep();
    // Whoever waits may try again, and what goes well is the end of it.
    let begin = Instant::now();
    while bad.query("fine", &[]).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..3 {
        assert_eq!(crash(), None);
    }
}

harness::tests! {
    who_crashes_again_and_again_has_to_wait_and_nobody_else_does,
    whoever_is_killed_as_it_is_born_is_an_error_worth_another_try,
    a_launcher_that_was_not_needed_and_has_ended_is_replaced,
    heavy_kills_at_random_cost_one_call_each_and_nothing_is_left,
}
