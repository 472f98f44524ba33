//! `kill -9` of worker, launcher or host at any moment: the tenant is at its
//! last acknowledged version, or, where the kill came between disk and answer,
//! at the next.

mod harness;
#[path = "histories/processes.rs"]
mod processes;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness::{host, wat};
use lazaret::{CallError, Tenant, WorkerError};
use processes::{argv0, descendants, kill};

/// The three numbers of `counter32`: always equal, whatever is killed when.
fn count(tenant: &Tenant) -> u64 {
    // A kill may still be on its way.
    let bytes = (0..3)
        .find_map(|_| tenant.query("get", b"").ok())
        .unwrap()
        .bytes;
    let numbers: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()))
        .collect();
    assert_eq!(
        (numbers[0], numbers[1]),
        (numbers[1], numbers[2]),
        "heap, global and stable memory differ"
    );
    numbers[0]
}

/// A worker that is killed in the middle of an update: the update is reported
/// as failed, nothing of it is visible, and the next call works.
fn a_worker_killed_in_an_update_costs_that_update() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_directory, host) = host();
    let tenant = host.install("c", wat("counter32"), b"").unwrap();
    tenant.update("inc", b"").unwrap();
    for round in 0..5 {
        tenant.query("get", b"").unwrap();
        let worker = tenant.info().worker.unwrap();
        let failed = std::thread::scope(|scope| {
            let call = scope.spawn(|| tenant.update("loop_after_inc", b""));
            std::thread::sleep(Duration::from_millis(20 + round * 7));
            kill(worker);
            call.join().unwrap()
        });
        assert!(
            matches!(failed, Err(CallError::WorkerEnded(_))),
            "{failed:?}"
        );
        assert_eq!(count(&tenant), 1);
    }
    tenant.update("inc", b"").unwrap();
    assert_eq!(count(&tenant), 2);
}

/// Workers killed at random while updates go on: every acknowledged update is
/// there, and no other but one that was under way.
fn workers_killed_at_random_lose_nothing_acknowledged() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_directory, host) = host();
    let tenant = host.install("c", wat("counter32"), b"").unwrap();
    let stop = AtomicBool::new(false);
    let mut acknowledged = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 7u64;
            while !stop.load(Ordering::SeqCst) {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                std::thread::sleep(Duration::from_micros(500 + (random >> 48) % 20_000));
                // The list of processes is asked, as the tenant is busy.
                for pid in workers() {
                    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                }
            }
        });
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            match tenant.update("inc", b"") {
                Ok(_) => acknowledged += 1,
                Err(
                    CallError::WorkerEnded(_)
                    | CallError::Memory(_)
                    | CallError::Commit(_)
                    | CallError::Worker(_),
                ) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(
        acknowledged > 10,
        "only {acknowledged} updates went through"
    );
    // With the worker gone, a failed update is never half there, and never
    // there at all: the host commits, and it wasn't killed.
    assert_eq!(count(&tenant), acknowledged);
}

/// Workers below this process.
fn workers() -> Vec<i32> {
    descendants(std::process::id() as i32)
        .into_iter()
        .filter(|pid| argv0(*pid) == "lazaret:worker")
        .collect()
}

/// A launcher that is killed takes its workers along; the next call starts
/// another.
fn a_launcher_killed_takes_its_workers_and_is_replaced() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (_directory, host) = host();
    let tenant = host.install("c", wat("counter32"), b"").unwrap();
    tenant.update("inc", b"").unwrap();
    for _ in 0..3 {
        tenant.query("get", b"").unwrap();
        let worker = tenant.info().worker.unwrap();
        let failed = std::thread::scope(|scope| {
            let call = scope.spawn(|| tenant.update("loop_after_inc", b""));
            std::thread::sleep(Duration::from_millis(20));
            kill(host.launcher_pid().unwrap());
            call.join().unwrap()
        });
        assert!(
            matches!(
                failed,
                Err(CallError::WorkerEnded(_) | CallError::Worker(WorkerError::Launcher(_)))
            ),
            "{failed:?}"
        );
        gone(worker);
        assert_eq!(count(&tenant), 1);
    }
}

/// Waits for a process to be gone.
fn gone(pid: i32) {
    let end = Instant::now() + Duration::from_secs(5);
    while Path::new(&format!("/proc/{pid}")).exists() && !argv0(pid).is_empty() {
        assert!(
            Instant::now() < end,
            "process {pid} ({}) is still there",
            argv0(pid)
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// These tests kill what is below this process: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The variable that makes this executable a host to be killed.
const VICTIM: &str = "LAZARET_TEST_VICTIM";

/// A host in a process of its own: counts for ever, and prints each
/// acknowledged count.
fn victim(directory: &str) {
    let host = harness::builder().data_dir(directory).build().unwrap();
    let tenant = match host.tenant("c") {
        Ok(tenant) => tenant,
        Err(_) => host.install("c", wat("counter32"), b"").unwrap(),
    };
    println!("{}", count(&tenant));
    loop {
        tenant.update("inc", b"").unwrap();
        println!("{}", count(&tenant));
    }
}

/// A host that is killed leaves no process behind, and its tenants at their
/// last acknowledged version or the one after.
fn a_host_killed_at_random_loses_nothing_acknowledged() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut least = 0;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(VICTIM, &data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: u64 = lines.next().unwrap().unwrap().parse().unwrap();
        assert!(
            first == least || first == least + 1,
            "round {round}: {first} after {least} were acknowledged"
        );
        least = first;
        let below = descendants(child.id() as i32);
        assert!(
            below.iter().any(|pid| argv0(*pid) == "lazaret:launcher"),
            "{below:?}"
        );
        let end = Instant::now() + Duration::from_millis(3 + round * 9);
        while Instant::now() < end {
            least = lines.next().unwrap().unwrap().parse().unwrap();
        }
        child.kill().unwrap();
        // Acknowledged but not yet read here.
        for line in lines.map_while(Result::ok) {
            least = line.parse().unwrap_or(least);
        }
        child.wait().unwrap();
        below.into_iter().for_each(gone);
    }
    assert!(least > 12, "only {least} updates in all rounds");
    let host = harness::builder().data_dir(&data).build().unwrap();
    let last = count(&host.tenant("c").unwrap());
    assert!(last == least || last == least + 1, "{last} after {least}");
}

fn main() {
    lazaret::init();
    if let Ok(directory) = std::env::var(VICTIM) {
        victim(&directory);
    }
    harness::main(&[
        (
            "a_worker_killed_in_an_update_costs_that_update",
            a_worker_killed_in_an_update_costs_that_update,
            harness::TRACKERS,
        ),
        (
            "heavy_workers_killed_at_random_lose_nothing_acknowledged",
            workers_killed_at_random_lose_nothing_acknowledged,
            harness::TRACKERS,
        ),
        (
            "a_launcher_killed_takes_its_workers_and_is_replaced",
            a_launcher_killed_takes_its_workers_and_is_replaced,
            harness::TRACKERS,
        ),
        (
            "heavy_a_host_killed_at_random_loses_nothing_acknowledged",
            a_host_killed_at_random_loses_nothing_acknowledged,
            &[],
        ),
    ]);
}
