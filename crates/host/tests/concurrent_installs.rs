//! Promise: whoever installs a tenant holds up nobody else, however long its
//! module takes to compile, and its name is nobody else's meanwhile.
//!
//! Once, the list of tenants was locked until a module was compiled: a minute's
//! compilation stopped every other install, open and removal for a minute.

mod harness;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{fixture, wat};
use lazaret::{Change, Compiling, Host, TenantError};

/// When a compilation that nobody lets go on goes on by itself: then the order
/// of events is wrong, and the test says so.
const PATIENCE: Duration = Duration::from_secs(60);

/// A canister unlike any other: its module is in no cache.
fn module(number: u32) -> String {
    format!(
        r#"(module
            (import "ic0" "msg_reply" (func $reply))
            (memory 1)
            (global $number i32 (i32.const {number}))
            (func (export "canister_query ask")
                (drop (global.get $number))
                (call $reply)))"#
    )
}

/// A host whose first compilation stops at its beginning, until it is let go.
struct Stopped {
    host: Host,
    events: Arc<Mutex<Vec<&'static str>>>,
    begun: Receiver<()>,
    go_on: Sender<()>,
    _directory: tempfile::TempDir,
}

fn stopped() -> Stopped {
    let directory = tempfile::tempdir().unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let (tell, begun) = channel();
    let (go_on, wait) = channel();
    let (wait, first, log) = (Mutex::new(wait), AtomicBool::new(true), events.clone());
    let host = harness::older_kernels::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        .on_compile(move |compiling| {
            if matches!(compiling, Compiling::Begun { .. }) && first.swap(false, Ordering::SeqCst) {
                tell.send(()).unwrap();
                let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
                log.lock().unwrap().push("the first compilation goes on");
            }
        })
        .build()
        .unwrap();
    Stopped {
        host,
        events,
        begun,
        go_on,
        _directory: directory,
    }
}

fn is_busy<T>(result: Result<T, TenantError>) -> bool {
    matches!(
        result,
        Err(TenantError::Busy { name, change: Change::Install }) if name == "slow"
    )
}

fn a_slow_compilation_holds_up_nobody() {
    let stopped = stopped();
    let host = &stopped.host;
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| host.install("slow", module(1), b""));
        stopped.begun.recv().unwrap();

        assert!(host.tenants().unwrap().is_empty());
        let other = host.install("other", module(2), b"").unwrap();
        other.query("ask", b"").unwrap();
        assert_eq!(host.tenants().unwrap(), ["other"]);
        drop(other);
        host.tenant("other").unwrap().query("ask", b"").unwrap();
        host.upgrade("other", module(3), b"").unwrap();
        assert!(is_busy(host.install("slow", module(4), b"")));
        assert!(is_busy(host.tenant("slow")));
        assert!(is_busy(host.upgrade("slow", module(4), b"")));
        assert!(is_busy(host.remove("slow")));
        host.remove("other").unwrap();
        stopped
            .events
            .lock()
            .unwrap()
            .push("all the others are done");

        stopped.go_on.send(()).unwrap();
        let slow = slow.join().unwrap().unwrap();
        slow.query("ask", b"").unwrap();
    });
    assert_eq!(
        *stopped.events.lock().unwrap(),
        ["all the others are done", "the first compilation goes on"]
    );
    assert_eq!(host.tenants().unwrap(), ["slow"]);
    assert!(matches!(
        host.install("slow", module(1), b""),
        Err(TenantError::Exists(_))
    ));
    host.remove("slow").unwrap();
    host.install("slow", module(1), b"").unwrap();
}

/// The compilation of a real, large module: while its compiler works, a small
/// tenant comes, answers and goes.
fn heavy_a_tenant_comes_and_goes_while_a_large_module_compiles() {
    let directory = tempfile::tempdir().unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let (tell, begun) = channel();
    let log = events.clone();
    let large = fixture("canisters/azle.wasm");
    let host = harness::older_kernels::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        .on_compile(move |compiling| match compiling {
            Compiling::Begun { module_bytes } if module_bytes > 1_000_000 => tell.send(()).unwrap(),
            Compiling::Ended if std::thread::current().name() == Some("large") => {
                log.lock().unwrap().push("the large one is compiled");
            }
            _ => {}
        })
        .build()
        .unwrap();
    host.install("small", wat("empty"), b"").unwrap();
    std::thread::scope(|scope| {
        let host = &host;
        let installing = std::thread::Builder::new()
            .name("large".into())
            .spawn_scoped(scope, move || host.install("large", large, b""))
            .unwrap();
        begun.recv().unwrap();
        host.tenant("small").unwrap().query("empty", b"").unwrap();
        host.remove("small").unwrap();
        events.lock().unwrap().push("the small one came and went");
        installing.join().unwrap().unwrap();
    });
    assert_eq!(
        *events.lock().unwrap(),
        ["the small one came and went", "the large one is compiled"]
    );
}

fn an_install_that_fails_or_panics_frees_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let first = AtomicBool::new(true);
    let host = harness::older_kernels::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        .on_compile(move |compiling| {
            if matches!(compiling, Compiling::Begun { .. }) && first.swap(false, Ordering::SeqCst) {
                panic!("the embedder's own panic");
            }
        })
        .build()
        .unwrap();
    let panicked = std::thread::scope(|scope| {
        scope
            .spawn(|| host.install("name", module(5), b""))
            .join()
            .is_err()
    });
    assert!(panicked);
    // Compiles, but its initialiser traps.
    assert!(matches!(
        host.install("name", wat("canister_init_trap"), b""),
        Err(TenantError::Call { .. })
    ));
    let large_argument = vec![0; 64 << 20];
    assert!(matches!(
        host.install("name", module(5), &large_argument),
        Err(TenantError::Call { .. })
    ));
    assert!(host.tenants().unwrap().is_empty());
    let tenant = host.install("name", module(5), b"").unwrap();
    tenant.query("ask", b"").unwrap();
}

/// The same module under several names at once: each thread writes the stored
/// module and the compiled one.
fn the_same_module_is_installed_by_many_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let host = harness::older_kernels::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        .build()
        .unwrap();
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let (host, barrier) = (&host, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let tenant = host.install(name, module(6), b"").unwrap();
                tenant.query("ask", b"").unwrap();
            });
        }
    });
    assert_eq!(host.tenants().unwrap(), ["a", "b", "c", "d"]);
    // A module, its code, and the workers' executable.
    let executable = usize::from(lazaret_worker_executable::IMAGE.is_some());
    let left: Vec<_> = ["modules", "cache/entries", "cache/contents"]
        .iter()
        .flat_map(|sub| std::fs::read_dir(directory.path().join("data").join(sub)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        left.len(),
        3 + 2 * executable,
        "nothing half-written is left: {left:?}"
    );
}

harness::tests! {
    a_slow_compilation_holds_up_nobody,
    heavy_a_tenant_comes_and_goes_while_a_large_module_compiles,
    an_install_that_fails_or_panics_frees_its_name,
    the_same_module_is_installed_by_many_at_once,
}
