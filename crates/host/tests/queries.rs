//! Promise: queries run on the last committed version, several at once, and see
//! one version whatever commits meanwhile; a long one delays nobody.

mod harness;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use harness::wat;
use lazaret::{CallError, CallOptions, Host, Tenant};

/// A query that has come to its gate, and how to let it go on.
type Held = Sender<()>;

struct Versions {
    tenant: Tenant,
    /// One for each query that calls `hold`.
    held: Receiver<Held>,
    _host: Host,
    _directory: tempfile::TempDir,
}

fn versions(queries: usize) -> Versions {
    let directory = tempfile::tempdir().unwrap();
    let (arrive, held) = channel();
    let arrive = Mutex::new(arrive);
    let host = harness::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        .tenant_limits(|limits| limits.queries = queries)
        .host_function("gate", 8, 8, move |_| {
            let (go_on, wait) = channel();
            arrive.lock().unwrap().send(go_on).unwrap();
            wait.recv().map_err(|error| error.to_string())?;
            Ok(Vec::new())
        })
        .build()
        .unwrap();
    let tenant = host.install("versions", wat("versions"), b"").unwrap();
    Versions {
        tenant,
        held,
        _host: host,
        _directory: directory,
    }
}

fn set(tenant: &Tenant, number: u64) -> u64 {
    let reply = tenant.update("set", &number.to_le_bytes()).unwrap();
    reply.committed.unwrap().version
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn read(tenant: &Tenant) -> u64 {
    number(&tenant.query("read", b"").unwrap().bytes)
}

/// Queries that read every page twice while a thousand versions are committed
/// see one version each, and never an older one than was committed before they
/// began.
fn heavy_queries_see_one_version_each_while_a_thousand_are_committed() {
    let Versions { tenant, .. } = &versions(3);
    set(tenant, 1);
    let (committed, over) = (AtomicU64::new(1), AtomicBool::new(false));
    let seen: Vec<u64> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (mut queries, mut newest) = (0, 0);
                    while !over.load(SeqCst) {
                        let least = committed.load(SeqCst);
                        let found = read(tenant);
                        assert!(found >= least && found >= newest, "{found} after {least}");
                        newest = found;
                        queries += 1;
                        if queries % 7 == 0 {
                            tenant.query("scribble", b"").unwrap();
                        }
                    }
                    queries
                })
            })
            .collect();
        for number in 2..=1_000 {
            set(tenant, number);
            committed.store(number, SeqCst);
            if number % 100 == 0 {
                assert!(matches!(
                    tenant.update("half", &9u64.to_le_bytes()),
                    Err(CallError::Trap(_))
                ));
            }
        }
        over.store(true, SeqCst);
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect()
    });
    assert!(seen.iter().all(|queries| *queries > 0), "{seen:?}");
    assert_eq!(read(tenant), 1_000);
}

/// A query in the middle holds up neither updates nor other queries, and goes
/// on with the version it began with.
fn a_long_query_delays_nobody() {
    let Versions { tenant, held, .. } = &versions(2);
    set(tenant, 1);
    std::thread::scope(|scope| {
        let long = scope.spawn(|| tenant.query("hold", b"").unwrap());
        let go_on = held.recv().unwrap();
        for number in 2..20 {
            set(tenant, number);
            assert_eq!(read(tenant), number);
        }
        go_on.send(()).unwrap();
        assert_eq!(number(&long.join().unwrap().bytes), 1);
    });
    // Its worker comes to the newest version too.
    assert_eq!((0..8).map(|_| read(tenant)).collect::<Vec<_>>(), [19; 8]);
}

/// Over the limit queries wait, and an update does not.
fn more_queries_than_may_run_wait_for_their_turn() {
    let Versions { tenant, held, .. } = &versions(2);
    set(tenant, 1);
    std::thread::scope(|scope| {
        let long: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| tenant.query("hold", b"").unwrap()))
            .collect();
        let gates = [held.recv().unwrap(), held.recv().unwrap()];
        let options = CallOptions {
            time: Some(Duration::from_millis(100)),
            ..CallOptions::default()
        };
        match tenant.query_with("read", b"", &options) {
            Err(CallError::Busy { running: 2, .. }) => {}
            other => panic!("{other:?}"),
        }
        set(tenant, 2);
        let waiting = scope.spawn(|| read(tenant));
        gates.iter().for_each(|gate| gate.send(()).unwrap());
        assert_eq!(waiting.join().unwrap(), 2);
        for query in long {
            assert_eq!(number(&query.join().unwrap().bytes), 1);
        }
    });
}

/// A worker that held an older version is brought to a newer one that is
/// larger, with nothing left of what queries wrote beyond the old size.
fn a_worker_follows_growth() {
    let Versions { tenant, held, .. } = &versions(2);
    set(tenant, 1);
    std::thread::scope(|scope| {
        let long = scope.spawn(|| tenant.query("hold", b"").unwrap());
        let go_on = held.recv().unwrap();
        // A second worker, which grows for a query, and falls behind.
        tenant.query("scribble", b"").unwrap();
        go_on.send(()).unwrap();
        long.join().unwrap();
        for number in 2..40 {
            tenant.update("grow", &1u64.to_le_bytes()).unwrap();
            let held_now = scope.spawn(|| tenant.query("hold", b"").unwrap());
            let gate = held.recv().unwrap();
            tenant.query("scribble", b"").unwrap();
            set(tenant, number);
            gate.send(()).unwrap();
            held_now.join().unwrap();
            assert_eq!(read(tenant), number);
            assert_eq!(read(tenant), number);
        }
    });
}

/// An upgrade in the middle of a query leaves the query its module and its
/// version.
fn an_upgrade_waits_for_no_query() {
    let Versions {
        tenant,
        held,
        _host: host,
        ..
    } = &versions(2);
    set(tenant, 1);
    let newer = String::from_utf8(wat("versions"))
        .unwrap()
        .replace("canister_query read", "canister_query read_again");
    std::thread::scope(|scope| {
        let long = scope.spawn(|| tenant.query("hold", b"").unwrap());
        let go_on = held.recv().unwrap();
        host.upgrade("versions", newer, b"").unwrap();
        assert!(matches!(
            tenant.query("read", b""),
            Err(CallError::NoMethod { .. })
        ));
        // The heap begins anew: zeros.
        go_on.send(()).unwrap();
        assert_eq!(number(&long.join().unwrap().bytes), 1);
    });
    set(tenant, 5);
    let reply = tenant.query("read_again", b"").unwrap();
    assert_eq!(number(&reply.bytes), 5);
}

/// A query that fails in any way leaves the version and the other workers as
/// they were.
fn a_worker_killed_in_a_query_costs_that_query() {
    let Versions { tenant, held, .. } = &versions(2);
    set(tenant, 1);
    std::thread::scope(|scope| {
        let pid = tenant.info().worker.unwrap();
        let long = scope.spawn(|| tenant.query("hold", b""));
        let go_on: Held = held.recv().unwrap();
        assert_eq!(tenant.info().workers, [] as [i32; 0]);
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        go_on.send(()).unwrap();
        assert!(matches!(
            long.join().unwrap(),
            Err(CallError::WorkerEnded(_))
        ));
        set(tenant, 2);
        assert_eq!(read(tenant), 2);
    });
}

harness::tests! {
    with harness::TRACKERS;
    heavy_queries_see_one_version_each_while_a_thousand_are_committed,
    a_long_query_delays_nobody,
    more_queries_than_may_run_wait_for_their_turn,
    a_worker_follows_growth,
    an_upgrade_waits_for_no_query,
    a_worker_killed_in_a_query_costs_that_query,
}
