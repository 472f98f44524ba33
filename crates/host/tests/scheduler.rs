//! Promise: few threads make the submitted calls of many tenants; each tenant's updates in
//! order, and none that takes long delays others.

mod harness;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lazaret::{CallError, Host, QueuedCall, Reply, SchedulerOptions, Tenant};

/// A number that `add` makes larger by one and answers, and calls that last as long as a
/// host function takes.
const COUNTER: &str = r#"
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "host" "hold" (func $hold (param i32 i32 i32 i32) (result i32)))
  (memory 1)
  (func $answer (call $append (i32.const 0) (i32.const 8)) (call $reply))
  (func $wait (drop (call $hold (i32.const 8) (i32.const 0) (i32.const 8) (i32.const 0))))
  (func (export "canister_update add")
    (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
    (call $answer))
  (func (export "canister_query get") (call $answer))
  (func (export "canister_update wait") (call $wait) (call $answer))
  (func (export "canister_query hold") (call $wait) (call $answer)))
"#;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

type Told = (usize, Result<Reply, CallError>);

struct There {
    host: Host,
    /// A call holds; what is sent back lets it go on.
    held: Receiver<Sender<()>>,
    directory: tempfile::TempDir,
}

fn there(change: impl FnOnce(&mut SchedulerOptions)) -> There {
    let directory = tempfile::tempdir().unwrap();
    let (host, held) = open(&directory, change);
    There {
        host,
        held,
        directory,
    }
}

fn open(
    directory: &tempfile::TempDir,
    change: impl FnOnce(&mut SchedulerOptions),
) -> (Host, Receiver<Sender<()>>) {
    let (tell, held) = channel();
    let tell = Arc::new(Mutex::new(tell));
    let host = harness::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        .scheduler(change)
        .host_function("hold", 8, 8, move |_| {
            let (go_on, wait) = channel();
            tell.lock().unwrap().send(go_on).unwrap();
            // An error: the test has ended.
            let _ = wait.recv();
            Ok(Vec::new())
        })
        .build()
        .unwrap();
    (host, held)
}

fn install(host: &Host, count: usize) -> Vec<Tenant> {
    (0..count)
        .map(|tenant| {
            host.install(&format!("tenant-{tenant}"), COUNTER, &[])
                .unwrap()
        })
        .collect()
}

/// Submits a call; its answer comes with `mark`.
fn submit(tenant: &Tenant, mark: usize, call: QueuedCall, tell: &Sender<Told>) {
    let tell = tell.clone();
    tenant
        .submit(call, move |reply| tell.send((mark, reply)).unwrap())
        .unwrap();
}

fn add() -> QueuedCall {
    QueuedCall::update("add", [])
}

fn number(reply: Result<Reply, CallError>) -> u64 {
    u64::from_le_bytes(reply.unwrap().bytes.try_into().unwrap())
}

fn next<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(PATIENCE).expect("it comes in time")
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Threads of this process whose names begin so.
fn threads(name: &str) -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|comm| comm.starts_with(name))
        .count()
}

fn calls_of_many_tenants_are_made_in_order_by_few_threads() {
    const TENANTS: usize = 30;
    const CALLS: usize = 60;
    let There { host, .. } = &there(|options| {
        options.running = 2.try_into().unwrap();
        options.threads = 4.try_into().unwrap();
    });
    let tenants = install(host, TENANTS);
    assert_eq!(threads("lazaret-calls"), 0);
    let (tell, told) = channel();
    for _ in 0..CALLS {
        for (mark, tenant) in tenants.iter().enumerate() {
            submit(tenant, mark, add(), &tell);
        }
    }
    let mut seen = [0; TENANTS];
    let mut most = 0;
    for _ in 0..TENANTS * CALLS {
        let (mark, reply) = next(&told);
        seen[mark] += 1;
        assert_eq!(number(reply), seen[mark], "tenant {mark}");
        most = most.max(threads("lazaret-calls"));
    }
    // One looks on.
    assert!((1..=5).contains(&most), "{most} threads");
    assert_eq!(seen, [CALLS as u64; TENANTS]);
    until("the end of all turns", || host.scheduler().running == 0);
    assert_eq!(host.scheduler().waiting, 0);
}

fn calls_that_take_long_delay_nobody() {
    let There { host, held, .. } = &there(|options| options.running = 2.try_into().unwrap());
    let tenants = install(host, 12);
    let (tell, told) = channel();
    // Three times as many as may run.
    for tenant in &tenants[..6] {
        submit(tenant, 0, QueuedCall::update("wait", []), &tell);
    }
    let go_on: Vec<Sender<()>> = (0..6).map(|_| next(held)).collect();
    for _ in 0..20 {
        for tenant in &tenants[6..] {
            submit(tenant, 1, add(), &tell);
        }
    }
    for _ in 0..6 * 20 {
        let (mark, reply) = next(&told);
        assert_eq!(mark, 1);
        reply.unwrap();
    }
    until("the long ones", || host.scheduler().long == 6);
    // Not even queries of the same tenants wait for them.
    for tenant in &tenants[..6] {
        submit(tenant, 2, QueuedCall::query("get", []), &tell);
    }
    for _ in 0..6 {
        assert_eq!(next(&told).0, 2);
    }
    drop(go_on);
    for _ in 0..6 {
        let (mark, reply) = next(&told);
        assert_eq!((mark, number(reply)), (0, 0));
    }
}

fn queries_do_not_wait_behind_one_that_takes_long() {
    let There { host, held, .. } = &there(|_| ());
    let tenants = install(host, 1);
    let (tell, told) = channel();
    submit(&tenants[0], 0, QueuedCall::query("hold", []), &tell);
    for _ in 0..10 {
        submit(&tenants[0], 1, QueuedCall::query("get", []), &tell);
    }
    let go_on = next(held);
    for _ in 0..10 {
        assert_eq!(next(&told).0, 1);
    }
    // Nor those that come when it has taken long already.
    until("the long one", || host.scheduler().long == 1);
    for _ in 0..10 {
        submit(&tenants[0], 1, QueuedCall::query("get", []), &tell);
        assert_eq!(next(&told).0, 1);
    }
    go_on.send(()).unwrap();
    assert_eq!(next(&told).0, 0);
}

fn who_submits_too_much_is_told() {
    let There { host, held, .. } = &there(|options| options.queue = 4.try_into().unwrap());
    let tenants = install(host, 2);
    let (tell, told) = channel();
    submit(&tenants[0], 0, QueuedCall::update("wait", []), &tell);
    let go_on = next(held);
    for mark in 1..=4 {
        submit(&tenants[0], mark, add(), &tell);
    }
    let full = tenants[0].submit(add(), |_| panic!("never made"));
    let full = full.unwrap_err();
    assert!(matches!(&full, CallError::QueueFull(full) if full.calls == 4));
    assert!(full.is_retryable());
    assert!(
        full.to_string().contains("SchedulerOptions::queue"),
        "{full}"
    );
    // That is one tenant's error.
    submit(&tenants[1], 9, add(), &tell);
    assert_eq!(next(&told).0, 9);
    go_on.send(()).unwrap();
    for expected in 0..=4 {
        let (mark, reply) = next(&told);
        assert_eq!((mark, number(reply)), (expected, expected as u64));
    }
    submit(&tenants[0], 5, add(), &tell);
    assert_eq!(number(next(&told).1), 5);
}

fn what_is_wrong_with_a_call_is_told() {
    let There { host, .. } = &there(|_| ());
    let tenants = install(host, 1);
    let (tell, told) = channel();
    submit(&tenants[0], 0, QueuedCall::update("none", []), &tell);
    assert!(matches!(next(&told).1, Err(CallError::NoMethod { .. })));
    host.remove("tenant-0").unwrap();
    submit(&tenants[0], 0, add(), &tell);
    assert!(matches!(next(&told).1, Err(CallError::Removed(_))));
}

fn who_panics_when_told_ends_no_thread() {
    let There { host, .. } = &there(|options| {
        options.running = 1.try_into().unwrap();
        options.threads = 2.try_into().unwrap();
    });
    let tenants = install(host, 1);
    let (tell, told) = channel();
    for _ in 0..5 {
        tenants[0].submit(add(), |_| panic!("of the test")).unwrap();
        submit(&tenants[0], 0, add(), &tell);
    }
    for expected in 1..=5 {
        assert_eq!(number(next(&told).1), 2 * expected);
    }
}

fn a_host_ends_when_its_calls_are_answered() {
    let There {
        host, directory, ..
    } = there(|_| ());
    let tenants = install(&host, 4);
    let (tell, told) = channel();
    for _ in 0..50 {
        for tenant in &tenants {
            submit(tenant, 0, add(), &tell);
        }
    }
    drop((host, tenants, tell));
    assert_eq!(told.iter().filter(|(_, reply)| reply.is_ok()).count(), 200);
    until("the end of its threads", || threads("lazaret-calls") == 0);
    let begin = Instant::now();
    let host = loop {
        // It ends on a thread of its own, a little later.
        match harness::builder()
            .data_dir(directory.path().join("data"))
            .host_function("hold", 8, 8, |_| Ok(Vec::new()))
            .build()
        {
            Ok(host) => break host,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
        }
    };
    for tenant in 0..4 {
        let tenant = host.tenant(&format!("tenant-{tenant}")).unwrap();
        assert_eq!(number(tenant.query("get", &[])), 50);
    }
}

harness::tests! {
    calls_of_many_tenants_are_made_in_order_by_few_threads,
    calls_that_take_long_delay_nobody,
    queries_do_not_wait_behind_one_that_takes_long,
    who_submits_too_much_is_told,
    what_is_wrong_with_a_call_is_told,
    who_panics_when_told_ends_no_thread,
    a_host_ends_when_its_calls_are_answered,
}
