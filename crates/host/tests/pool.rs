//! Promise: workers vanish when nobody calls, and come back where they were,
//! unnoticed; no more of them live than may, and none that is busy has to leave.

mod harness;
#[path = "histories/processes.rs"]
mod processes;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lazaret::{CallError, CallOptions, Host, PoolOptions, Priority, Tenant};
use processes::{argv0, descendants, kill};

/// A number that `add` makes larger by one and answers, and a query that lasts as
/// long as a host function takes.
const COUNTER: &str = r#"
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "host" "hold" (func $hold (param i32 i32 i32 i32) (result i32)))
  (memory 1)
  (func $answer (call $append (i32.const 0) (i32.const 8)) (call $reply))
  (func (export "canister_update add")
    (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
    (call $answer))
  (func (export "canister_query get") (call $answer))
  (func (export "canister_query hold")
    (drop (call $hold (i32.const 8) (i32.const 0) (i32.const 8) (i32.const 0)))
    (call $answer)))
"#;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

struct There {
    host: Host,
    /// A call holds; what is sent back lets it go on.
    held: Receiver<Sender<()>>,
    _directory: tempfile::TempDir,
}

fn there(change: impl FnOnce(&mut PoolOptions)) -> There {
    let directory = tempfile::tempdir().unwrap();
    let (tell, held) = channel();
    let tell = Arc::new(Mutex::new(tell));
    let host = harness::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        .pool(change)
        .host_function("hold", 8, 8, move |_| {
            let (go_on, wait) = channel();
            tell.lock().unwrap().send(go_on).unwrap();
            wait.recv().unwrap();
            Ok(Vec::new())
        })
        .build()
        .unwrap();
    There {
        host,
        held,
        _directory: directory,
    }
}

fn install(host: &Host, count: usize) -> Vec<Tenant> {
    (0..count)
        .map(|tenant| host.install(&name(tenant), COUNTER, &[]).unwrap())
        .collect()
}

fn name(tenant: usize) -> String {
    format!("tenant-{tenant}")
}

fn add(tenant: &Tenant) -> u64 {
    u64::from_le_bytes(tenant.update("add", &[]).unwrap().bytes.try_into().unwrap())
}

fn worker(tenant: &Tenant) -> Option<i32> {
    tenant.info().worker
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn workers_leave_when_nobody_calls_and_come_back_where_they_were() {
    let There { host, .. } = &there(|pool| pool.idle = Some(Duration::from_secs(1)));
    let tenants = install(host, 3);
    for (calls, tenant) in tenants.iter().enumerate() {
        for expected in 1..=calls as u64 + 1 {
            assert_eq!(add(tenant), expected);
        }
    }
    let pids: Vec<i32> = tenants.iter().filter_map(worker).collect();
    assert_eq!(pids.len(), 3);
    until("the end of all", || host.pool().workers == 0);
    until("the end of their processes", || {
        pids.iter().all(|pid| argv0(*pid).is_empty())
    });
    assert_eq!(host.pool().left_idle, 3);
    for (calls, tenant) in tenants.iter().enumerate() {
        assert_eq!(worker(tenant), None);
        assert_eq!(add(tenant), calls as u64 + 2);
    }
}

fn who_is_called_stays() {
    let There { host, .. } = &there(|pool| pool.idle = Some(Duration::from_secs(2)));
    let tenants = install(host, 2);
    add(&tenants[1]);
    let (mut calls, mut pid) = (0, None);
    until("the end of the other", || {
        calls += 1;
        assert_eq!(add(&tenants[0]), calls);
        let now = worker(&tenants[0]);
        assert_eq!(*pid.get_or_insert(now), now, "it had to leave");
        worker(&tenants[1]).is_none()
    });
}

fn a_tenant_stays_open_as_long_as_it_has_a_worker() {
    let There { host, .. } = &there(|_| ());
    drop(install(host, 1));
    assert_eq!(add(&host.tenant("tenant-0").unwrap()), 1);
    let first = worker(&host.tenant("tenant-0").unwrap()).unwrap();
    assert_eq!(add(&host.tenant("tenant-0").unwrap()), 2);
    assert_eq!(worker(&host.tenant("tenant-0").unwrap()), Some(first));
    // But not when it is removed.
    host.remove("tenant-0").unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let kept: Vec<_> = links
        .filter(|link| link.to_string_lossy().contains("tenant-0"))
        .collect();
    assert!(kept.is_empty(), "{kept:?}");
    until("the end of its worker", || argv0(first).is_empty());
}

fn no_more_workers_live_than_may() {
    let There { host, .. } = &there(|pool| pool.workers = 2.try_into().ok());
    let tenants = install(host, 6);
    for round in 1..=3 {
        for tenant in &tenants {
            assert_eq!(add(tenant), round);
            assert!(host.pool().workers <= 2);
        }
    }
    let state = host.pool();
    // Of six that are called in turns, four have none each time.
    assert!(state.left_for_others >= 12, "{state}");
}

fn who_is_busy_does_not_have_to_leave_for_others() {
    let There { host, held, .. } = &there(|pool| pool.workers = 2.try_into().ok());
    let tenants = install(host, 3);
    std::thread::scope(|scope| {
        let busy: Vec<_> = tenants[..2]
            .iter()
            .map(|tenant| scope.spawn(|| tenant.query("hold", &[])))
            .collect();
        let gates = [held.recv().unwrap(), held.recv().unwrap()];
        let begin = Instant::now();
        let options = CallOptions {
            time: Some(Duration::from_millis(200)),
            ..CallOptions::default()
        };
        let error = tenants[2].query_with("get", &[], &options).unwrap_err();
        assert!(matches!(error, CallError::AllBusy(_)), "{error}");
        assert!(error.to_string().contains("all 2 workers"), "{error}");
        assert!(begin.elapsed() >= Duration::from_millis(200));
        // It waits for one that ends in time.
        let waits = scope.spawn(|| tenants[2].query("get", &[]));
        let [first, second] = gates;
        first.send(()).unwrap();
        waits.join().unwrap().unwrap();
        second.send(()).unwrap();
        for call in busy {
            call.join().unwrap().unwrap();
        }
    });
}

fn who_is_wanted_least_leaves_first() {
    let There { host, .. } = &there(|pool| pool.workers = 3.try_into().ok());
    let tenants = install(host, 4);
    tenants[0].set_priority(Priority::High);
    tenants[1].set_priority(Priority::Low);
    for tenant in &tenants[..3] {
        add(tenant);
    }
    add(&tenants[3]);
    assert!(worker(&tenants[0]).is_some() && worker(&tenants[2]).is_some());
    assert_eq!(worker(&tenants[1]), None);
}

fn what_was_blank_is_verified_as_any_other() {
    let fresh = there(|pool| pool.blanks = 0);
    let fresh = install(&fresh.host, 1)[0].receipt().unwrap();
    let There { host, .. } = &there(|_| ());
    let tenants = install(host, 2);
    until("a blank worker", || {
        tenants[0].sleep();
        tenants[0].query("get", &[]).unwrap();
        host.pool().blanks > 0
    });
    let before = host.pool();
    let receipt = tenants[1].receipt().unwrap();
    assert_eq!(host.pool().from_blanks, before.from_blanks + 1);
    let layers = |receipt: &lazaret::wall::Receipt| {
        let layers = receipt.layers.iter();
        let standing = |entry: &lazaret::wall::receipt::Entry| {
            (entry.layer, std::mem::discriminant(&entry.state))
        };
        (receipt.grade, layers.map(standing).collect::<Vec<_>>())
    };
    assert_eq!(layers(&receipt), layers(&fresh));
    assert_eq!(receipt.filter, fresh.filter);
    // A cookie for scheduling is another for each worker.
    let measures = |receipt: &lazaret::wall::Receipt| {
        let measures = receipt.measures.iter();
        let standing = |entry: &lazaret::wall::measures::Entry| {
            (entry.measure, std::mem::discriminant(&entry.standing))
        };
        measures.map(standing).collect::<Vec<_>>()
    };
    assert_eq!(measures(&receipt), measures(&fresh));
}

fn blanks_that_are_killed_are_missed_by_nobody() {
    let There { host, .. } = &there(|_| ());
    let tenants = install(host, 4);
    for round in 1..=10 {
        until("a blank worker", || {
            tenants[0].sleep();
            tenants[0].query("get", &[]).unwrap();
            host.pool().blanks > 0
        });
        let used: Vec<i32> = tenants.iter().filter_map(worker).collect();
        let mut others = descendants(std::process::id() as i32);
        others.retain(|pid| argv0(*pid) == "lazaret:worker" && !used.contains(pid));
        assert!(!others.is_empty());
        // One may have ended meanwhile, or be a tenant's that is just let go.
        for pid in others {
            let _ = std::panic::catch_unwind(|| kill(pid));
        }
        for tenant in &tenants[1..] {
            tenant.sleep();
            assert_eq!(add(tenant), round);
        }
    }
}

harness::tests! {
    workers_leave_when_nobody_calls_and_come_back_where_they_were,
    who_is_called_stays,
    a_tenant_stays_open_as_long_as_it_has_a_worker,
    no_more_workers_live_than_may,
    who_is_busy_does_not_have_to_leave_for_others,
    who_is_wanted_least_leaves_first,
    what_was_blank_is_verified_as_any_other,
    blanks_that_are_killed_are_missed_by_nobody,
}
