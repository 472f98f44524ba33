//! Promise: the states of all tenants and what running calls have grown by never
//! have more than the node's memory budget, whatever ends a call; a tenant's own
//! limit is the guest's -1, the node's is an abort that changes nothing.

mod harness;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use harness::wat;
use lazaret::{Builder, CallError, CallOptions, Host, NodeMemory, Tenant, TenantError, TrapKind};

const PAGE: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

/// A host whose guests may call `host.gate`, and what each call of it is let go
/// by.
struct Gated {
    host: Host,
    arrived: Receiver<Sender<()>>,
    directory: tempfile::TempDir,
}

fn builder(data: &Path, arrive: Sender<Sender<()>>) -> Builder {
    let arrive = Mutex::new(arrive);
    harness::builder()
        .data_dir(data)
        .relaxed_durability()
        .host_function("gate", 8, 8, move |_| {
            let (go_on, wait) = channel();
            arrive.lock().unwrap().send(go_on).unwrap();
            wait.recv().map_err(|error| error.to_string())?;
            Ok(Vec::new())
        })
}

fn host(change: impl FnOnce(Builder) -> Builder) -> Gated {
    let directory = tempfile::tempdir().unwrap();
    let (arrive, arrived) = channel();
    let host = change(builder(&directory.path().join("data"), arrive))
        .build()
        .unwrap();
    Gated {
        host,
        arrived,
        directory,
    }
}

fn install(host: &Host, name: &str, stable_pages: u64) -> Tenant {
    host.install(name, wat("growth"), &stable_pages.to_le_bytes())
        .unwrap()
}

/// What a growth of so many pages answers.
fn grow(tenant: &Tenant, method: &str, pages: u64) -> Result<i64, CallError> {
    let reply = match method.ends_with("query") {
        true => tenant.query(method, &pages.to_le_bytes())?,
        false => tenant.update(method, &pages.to_le_bytes())?,
    };
    Ok(i64::from_le_bytes(reply.bytes.try_into().unwrap()))
}

fn taken(host: &Host) -> u64 {
    host.memory_budget().unwrap().taken
}

/// Bytes of a tenant's state.
fn state(tenant: &Tenant) -> u64 {
    let info = tenant.info();
    info.heap_bytes + info.stable_bytes
}

fn refused(result: Result<i64, CallError>) -> NodeMemory {
    match result {
        Err(CallError::NodeMemory(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

fn a_tenants_own_limit_is_minus_one_and_the_nodes_an_abort() {
    let Gated { host, .. } = &host(|builder| {
        builder.memory_budget(8 * MIB).tenant_limits(|limits| {
            limits.heap = 16 * MIB;
            limits.stable = 2 * MIB;
        })
    });
    let tenant = install(host, "a", 0);
    assert_eq!((taken(host), state(&tenant)), (PAGE, PAGE));
    // Its own limits, whatever the node has.
    assert_eq!(grow(&tenant, "stable", 33).unwrap(), -1);
    assert_eq!(grow(&tenant, "heap", 256).unwrap(), -1);
    assert_eq!(taken(host), PAGE);
    assert_eq!(grow(&tenant, "stable", 32).unwrap(), 0);
    assert_eq!(grow(&tenant, "heap", 31).unwrap(), 1);
    assert_eq!(taken(host), 4 * MIB);
    let (version, worker) = (tenant.info().version, tenant.info().worker);
    for method in ["heap", "heap_query", "page_by_page"] {
        let lack = refused(grow(&tenant, method, 65));
        assert!(
            lack.wanted <= 65 * PAGE && lack.wanted > lack.left,
            "{lack:?}"
        );
        assert_eq!(lack.budget, 8 * MIB);
        let text = CallError::from(lack).to_string();
        let numbers = [lack.wanted, lack.left, lack.budget].map(|number| number.to_string());
        assert!(numbers.iter().all(|number| text.contains(number)), "{text}");
        assert!(text.contains("nothing was changed: try again"), "{text}");
        assert_eq!((taken(host), state(&tenant)), (4 * MIB, 4 * MIB));
    }
    // The worker goes on, and what there is can be had to the last byte.
    let info = tenant.info();
    assert_eq!((info.version, info.worker), (version, worker));
    assert_eq!(grow(&tenant, "heap_query", 64).unwrap(), 32);
    assert_eq!(taken(host), 4 * MIB);
    assert_eq!(grow(&tenant, "page_by_page", 64).unwrap(), 95);
    assert_eq!((taken(host), state(&tenant)), (8 * MIB, 8 * MIB));
    let lack = refused(grow(&tenant, "heap", 1));
    assert_eq!((lack.wanted, lack.left), (PAGE, 0));
    // What doesn't grow goes on.
    assert_eq!(grow(&tenant, "heap", 0).unwrap(), 96);
}

fn a_running_query_counts_and_gives_back() {
    let Gated { host, arrived, .. } = &host(|builder| builder.memory_budget(4 * MIB));
    let (a, b) = (install(host, "a", 0), install(host, "b", 0));
    std::thread::scope(|scope| {
        let query = scope.spawn(|| a.query("hold", &48u64.to_le_bytes()).unwrap());
        let go_on = arrived.recv().unwrap();
        assert!(taken(host) >= 50 * PAGE);
        let lack = refused(grow(&b, "heap", 16));
        assert!(lack.left < 16 * PAGE, "{lack:?}");
        // An update of the same tenant has no more than the others.
        refused(grow(&a, "heap", 16));
        go_on.send(()).unwrap();
        query.join().unwrap();
    });
    assert_eq!(taken(host), 2 * PAGE);
    assert_eq!(grow(&b, "heap", 62).unwrap(), 1);
    assert_eq!(taken(host), 64 * PAGE);
}

fn whatever_ends_a_call_gives_back_what_it_reserved() {
    let Gated { host, .. } = &host(|builder| builder.memory_budget(64 * MIB));
    let tenant = install(host, "a", 3);
    let before = taken(host);
    assert_eq!(before, 4 * PAGE);
    match tenant.update("trap", &100u64.to_le_bytes()) {
        Err(CallError::Trap(trap)) => assert_eq!(trap.kind, TrapKind::Unreachable),
        other => panic!("{other:?}"),
    }
    assert_eq!(taken(host), before);
    let short = CallOptions {
        time: Some(Duration::from_millis(100)),
        ..CallOptions::default()
    };
    let ended = tenant.update_with("spin", &100u64.to_le_bytes(), &short);
    assert!(matches!(ended, Err(CallError::TimeLimit(_))), "{ended:?}");
    assert_eq!(taken(host), before);
    let fuel = CallOptions {
        fuel: Some(1_000_000),
        ..CallOptions::default()
    };
    let ended = tenant.update_with("spin", &100u64.to_le_bytes(), &fuel);
    assert!(matches!(ended, Err(CallError::Trap(_))), "{ended:?}");
    assert_eq!(taken(host), before);
    // A worker that is killed in the middle.
    tenant.query("heap_query", &0u64.to_le_bytes()).unwrap();
    let worker = rustix::process::Pid::from_raw(tenant.info().worker.unwrap()).unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| tenant.update("spin", &100u64.to_le_bytes()));
        while taken(host) == before {
            std::thread::yield_now();
        }
        rustix::process::kill_process(worker, rustix::process::Signal::KILL).unwrap();
        let ended = call.join().unwrap();
        assert!(matches!(ended, Err(CallError::WorkerEnded(_))), "{ended:?}");
    });
    assert_eq!((taken(host), state(&tenant)), (before, before));
}

/// The error of something that the node has too little memory for.
fn lacking<T>(result: Result<T, TenantError>) -> NodeMemory {
    match result.map(drop) {
        Err(TenantError::NodeMemory(refused)) => refused,
        Err(TenantError::Call { error, .. }) => match *error {
            CallError::NodeMemory(refused) => refused,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn every_way_to_make_and_change_a_state_is_counted() {
    let Gated {
        host, directory, ..
    } = &host(|builder| builder.memory_budget(4 * MIB));
    let names = |count: usize| assert_eq!(host.tenants().unwrap().len(), count);
    // A tenant of 33 pages, one of them the heap's.
    let a = install(host, "a", 32);
    assert_eq!(taken(host), 33 * PAGE);
    let lack = lacking(host.install("b", wat("growth"), &32u64.to_le_bytes()));
    assert_eq!((lack.wanted, lack.left), (32 * PAGE, 30 * PAGE));
    // A module that begins with more than there is: 256 MiB.
    let lack = lacking(host.install("b", wat("pages"), b""));
    assert_eq!((lack.wanted, lack.left), (256 * MIB, 31 * PAGE));
    let lack = lacking(host.fork("a", "b", None));
    assert_eq!((lack.wanted, lack.left), (33 * PAGE, 31 * PAGE));
    let mut archive = Vec::new();
    host.export("a", None, &mut archive, &mut |_| {}).unwrap();
    let lack = lacking(host.import("b", &mut &archive[..], &mut |_| {}));
    assert_eq!((lack.wanted, lack.left), (33 * PAGE, 31 * PAGE));
    names(1);
    assert_eq!(taken(host), 33 * PAGE);
    // The snapshot itself takes no memory; going back to it does.
    host.snapshot("a", "large").unwrap();
    assert_eq!(taken(host), 33 * PAGE);
    // An upgrade drops the heap and keeps the stable memory.
    grow(&a, "heap", 31).unwrap();
    assert_eq!(taken(host), 64 * PAGE);
    host.upgrade("a", wat("growth"), b"").unwrap();
    assert_eq!((taken(host), state(&a)), (33 * PAGE, 33 * PAGE));
    lacking(host.upgrade("a", wat("pages"), b""));
    assert_eq!((taken(host), state(&a)), (33 * PAGE, 33 * PAGE));
    host.remove("a").unwrap();
    assert_eq!(taken(host), 0);
    names(0);
    // Its handle gives back nothing twice.
    drop(a);
    assert_eq!(taken(host), 0);

    let a = install(host, "a", 15);
    host.snapshot("a", "small").unwrap();
    grow(&a, "heap", 40).unwrap();
    host.snapshot("a", "large").unwrap();
    host.restore("a", "small").unwrap();
    assert_eq!(taken(host), 16 * PAGE);
    let b = host.fork("a", "b", Some("small")).unwrap();
    assert_eq!((taken(host), state(&b)), (32 * PAGE, 16 * PAGE));
    let lack = lacking(host.restore("a", "large"));
    assert_eq!((lack.wanted, lack.left), (40 * PAGE, 32 * PAGE));
    assert_eq!((taken(host), state(&a)), (32 * PAGE, 16 * PAGE));
    host.remove("b").unwrap();
    host.restore("a", "large").unwrap();
    assert_eq!((taken(host), state(&a)), (56 * PAGE, 56 * PAGE));
    host.remove("a").unwrap();
    let archive = &mut &archive[..];
    let c = host.import("c", archive, &mut |_| {}).unwrap();
    assert_eq!((taken(host), state(&c)), (33 * PAGE, 33 * PAGE));
    assert!(directory.path().exists());
}

fn a_new_host_counts_all_tenants_and_a_lowered_budget_only_stops_growth() {
    let Gated {
        host,
        directory,
        arrived,
    } = host(|builder| builder.memory_budget(64 * MIB));
    for (name, pages) in [("a", 10), ("b", 20), ("c", 30)] {
        install(&host, name, pages);
    }
    let all = 63 * PAGE;
    assert_eq!(taken(&host), all);
    drop((host, arrived));
    let again = |budget: u64| {
        let (arrive, _) = channel();
        let builder = builder(&directory.path().join("data"), arrive);
        builder.memory_budget(budget).build().unwrap()
    };
    let host = again(all + PAGE);
    assert_eq!(taken(&host), all);
    let a = host.tenant("a").unwrap();
    assert_eq!(taken(&host), all);
    assert_eq!(grow(&a, "stable", 1).unwrap(), 10);
    assert_eq!(refused(grow(&a, "stable", 1)).left, 0);
    drop((a, host));
    let host = again(PAGE);
    assert_eq!(taken(&host), all + PAGE);
    let b = host.tenant("b").unwrap();
    assert_eq!(grow(&b, "heap", 0).unwrap(), 1);
    assert_eq!(refused(grow(&b, "heap", 1)).left, 0);
    assert_eq!(refused(grow(&b, "stable_query", 1)).left, 0);
    // And without one nothing is counted, and nothing refused.
    drop((b, host));
    let (arrive, _) = channel();
    let host = builder(&directory.path().join("data"), arrive)
        .build()
        .unwrap();
    assert_eq!(host.memory_budget(), None);
    let c = host.tenant("c").unwrap();
    assert_eq!(grow(&c, "heap", 100).unwrap(), 1);
}

fn many_tenants_many_threads_growth_traps_and_kills() {
    const BUDGET: u64 = 12 * MIB;
    let Gated { host, .. } = &host(|builder| {
        builder.memory_budget(BUDGET).tenant_limits(|limits| {
            limits.heap = 6 * MIB;
            limits.stable = 6 * MIB;
        })
    });
    let tenants: Vec<Tenant> = (0..4)
        .map(|number| install(host, &format!("t{number}"), 1))
        .collect();
    let (over, most) = (&AtomicBool::new(false), &AtomicU64::new(0));
    let [grown, lacked, limited, trapped, killed] = &[const { AtomicU64::new(0) }; 5];
    for round in 0..4u64 {
        let running = &AtomicU64::new(6);
        std::thread::scope(|scope| {
            for thread in 0..6u64 {
                let tenants = &tenants;
                scope.spawn(move || {
                    let mut random = (round + 1) * 1_000 + thread + 1;
                    for step in 0..25 {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let tenant = &tenants[(random % 4) as usize];
                        let pages = (random >> 8) % 24;
                        let methods = ["heap", "stable", "heap_query", "stable_query", "trap"];
                        let method = methods[(random >> 16) as usize % methods.len()];
                        if step % 9 == 8 {
                            // In the middle of somebody's call, if it has one.
                            if let Some(pid) = tenant.info().worker {
                                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                                let signal = rustix::process::Signal::KILL;
                                let _ = rustix::process::kill_process(pid, signal);
                            }
                        }
                        match grow(tenant, method, pages) {
                            Ok(-1) => limited.fetch_add(1, SeqCst),
                            Ok(_) => grown.fetch_add(1, SeqCst),
                            Err(CallError::NodeMemory(_)) => lacked.fetch_add(1, SeqCst),
                            Err(CallError::Trap(_)) => trapped.fetch_add(1, SeqCst),
                            Err(_) => killed.fetch_add(1, SeqCst),
                        };
                    }
                    running.fetch_sub(1, SeqCst);
                });
            }
            scope.spawn(move || {
                while running.load(SeqCst) > 0 {
                    let now = taken(host);
                    most.fetch_max(now, SeqCst);
                    if now > BUDGET {
                        over.store(true, SeqCst);
                    }
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
        });
        assert!(!over.load(SeqCst), "{most:?}");
        // Nothing runs: the count is what the states have.
        assert_eq!(taken(host), tenants.iter().map(state).sum::<u64>());
        // Room for the next round.
        let name = format!("t{}", round % 4);
        host.upgrade(&name, wat("growth"), b"").unwrap();
        assert_eq!(taken(host), tenants.iter().map(state).sum::<u64>());
    }
    let counts = [grown, lacked, trapped].map(|count| count.load(SeqCst));
    assert!(
        counts.iter().all(|count| *count > 0),
        "{counts:?} {limited:?} {killed:?}"
    );
    for tenant in ["t0", "t1", "t2", "t3"] {
        host.remove(tenant).unwrap();
    }
    assert_eq!(taken(host), 0);
}

harness::tests! {
    with harness::TRACKERS;
    a_tenants_own_limit_is_minus_one_and_the_nodes_an_abort,
    a_running_query_counts_and_gives_back,
    whatever_ends_a_call_gives_back_what_it_reserved,
    every_way_to_make_and_change_a_state_is_counted,
    a_new_host_counts_all_tenants_and_a_lowered_budget_only_stops_growth,
    many_tenants_many_threads_growth_traps_and_kills,
}
