//! Promise: what an embedder offers is listed, bounded, paid for and rationed; and
//! a secret that it uses on a guest's behalf is in no worker's memory.

mod harness;
#[path = "../../../tests/worker_memory.rs"]
mod worker_memory;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lazaret::{BuildError, CallError, CallOptions, Declaration, Host, Tenant, Verdict};
use worker_memory::search;

/// Has the argument, from its fifth byte on, signed as often as its first four
/// say, and replies with the last signature.
const GUEST: &str = r#"
(module
  (import "host" "sign" (func $sign (param i32 i32 i32 i32) (result i32)))
  (import "ic0" "msg_arg_data_size" (func $size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory (export "memory") 1)
  (func $run
    (call $copy (i32.const 0) (i32.const 0) (call $size))
    (loop $again
      (drop (call $sign (i32.const 4) (i32.sub (call $size) (i32.const 4)) (i32.const 128) (i32.const 32)))
      (i32.store (i32.const 0) (i32.sub (i32.load (i32.const 0)) (i32.const 1)))
      (br_if $again (i32.load (i32.const 0))))
    (call $append (i32.const 128) (i32.const 32))
    (call $reply))
  (func (export "canister_update sign") (call $run))
  (func (export "canister_query ask") (call $run)))
"#;

/// The same for a program, for the 32 bytes of its standard input, twice.
const PROGRAM: &str = r#"
(module
  (import "host" "sign" (func $sign (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 32))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $sign (i32.const 64) (i32.const 32) (i32.const 128) (i32.const 32)))
    (drop (call $sign (i32.const 64) (i32.const 32) (i32.const 128) (i32.const 32)))))
"#;

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    bytes
}

fn argument(times: u32, note: &[u8]) -> Vec<u8> {
    [&times.to_le_bytes(), note].concat()
}

fn sign(key: &[u8; 32], note: &[u8]) -> Vec<u8> {
    blake3::keyed_hash(key, note).as_bytes().to_vec()
}

/// A host with a data directory of its own.
struct Made {
    host: Host,
    _directory: tempfile::TempDir,
}

fn made(
    declaration: Declaration,
    function: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
) -> Made {
    let directory = tempfile::tempdir().unwrap();
    let host = harness::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        // Each worker is accounted for.
        .pool(|pool| pool.blanks = 0)
        .offer(declaration, function)
        .build()
        .unwrap();
    Made {
        host,
        _directory: directory,
    }
}

/// The workers of this host that live: children of its launcher.
fn workers(host: &Host) -> Vec<i32> {
    let launcher = host.launcher_pid().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name may hold anything, but ends with the last parenthesis.
            let parent = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            parent == Some(launcher)
        })
        .collect()
}

fn only_worker(host: &Host) -> i32 {
    match workers(host).as_slice() {
        [pid] => *pid,
        others => panic!("{others:?}"),
    }
}

/// What waits in a host function until it is let go on.
type Held = Receiver<Sender<()>>;

/// A function that signs, and says so first and waits.
fn signing(
    key: [u8; 32],
) -> (
    impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    Held,
) {
    let (arrive, arrived) = channel();
    let arrive = Mutex::new(arrive);
    let function = move |note: &[u8]| {
        let signature = sign(&key, note);
        let (go_on, wait) = channel::<()>();
        arrive
            .lock()
            .map_err(|error| error.to_string())?
            .send(go_on)
            .map_err(|error| error.to_string())?;
        wait.recv().map_err(|error| error.to_string())?;
        Ok(signature)
    };
    (function, arrived)
}

/// Everything that a worker has is searched: the note is there, and the signature
/// once there was one, the key is not, and not in the launcher either, which was
/// once a copy of this process.
fn only_what_was_given(host: &Host, pid: i32, key: &[u8], note: &[u8], signed: Option<&[u8]>) {
    let control = search(pid, note);
    assert!(
        !control.places.is_empty(),
        "the note is not found, so nothing would be: {control:?}"
    );
    assert!(
        control.bytes > 1 << 20 && control.mappings > 10 && control.shared > 0,
        "{control:?}"
    );
    let signature = search(pid, &sign(key.try_into().unwrap(), note));
    match signed {
        Some(_) => assert!(!signature.places.is_empty(), "the signature is not found"),
        None => assert_eq!(signature.places, vec![], "before it was given"),
    }
    assert_eq!(search(pid, key).places, vec![], "the key in the worker");
    let launcher = host.launcher_pid().unwrap();
    let found = search(launcher, key);
    assert!(found.bytes > 100 << 10, "{found:?}");
    assert_eq!(found.places, vec![], "the key in the launcher");
    // It is in this process, and would be found.
    let here = search(std::process::id() as i32, key);
    assert!(!here.places.is_empty(), "{here:?}");
}

fn a_secret_that_is_used_for_a_tenant_is_not_in_its_worker() {
    let (key, note) = (random(), random());
    let (function, held) = signing(key);
    let made = made(Declaration::new("sign", 64, 32), function);
    let tenant = made.host.install("a", GUEST, b"").unwrap();
    let (reply, pid) = std::thread::scope(|scope| {
        let call = scope.spawn(|| tenant.update("sign", &argument(2, &note)));
        // The guest waits for the first signature, then for the second.
        let first = held.recv().unwrap();
        let pid = only_worker(&made.host);
        only_what_was_given(&made.host, pid, &key, &note, None);
        first.send(()).unwrap();
        let second = held.recv().unwrap();
        only_what_was_given(&made.host, pid, &key, &note, Some(&[]));
        second.send(()).unwrap();
        (call.join().unwrap().unwrap(), pid)
    });
    assert_eq!(reply.bytes, sign(&key, &note));
    assert_eq!(tenant.info().worker, Some(pid));
    only_what_was_given(&made.host, pid, &key, &note, Some(&[]));
}

fn a_secret_that_is_used_for_a_program_is_not_in_its_worker() {
    let (key, note) = (random(), random());
    let (function, held) = signing(key);
    let made = made(Declaration::new("sign", 64, 32), function);
    let (input, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::write(&write, &note), Ok(32));
    drop(write);
    let program = made
        .host
        .program(PROGRAM)
        .stdin(lazaret::Input::Descriptor(input));
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| program.run());
        let first = held.recv().unwrap();
        let pid = only_worker(&made.host);
        only_what_was_given(&made.host, pid, &key, &note, None);
        first.send(()).unwrap();
        let second = held.recv().unwrap();
        only_what_was_given(&made.host, pid, &key, &note, Some(&[]));
        second.send(()).unwrap();
        run.join().unwrap().unwrap()
    });
    assert_eq!(report.verdict, Verdict::Exited, "{report:?}");
}

/// Calls of a function that counts them.
fn counted(declaration: Declaration) -> (Made, Tenant, Arc<Mutex<Vec<Instant>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let count = calls.clone();
    let made = made(declaration, move |note| {
        count
            .lock()
            .map_err(|error| error.to_string())?
            .push(Instant::now());
        Ok(sign(&[7; 32], note))
    });
    let tenant = made.host.install("a", GUEST, b"").unwrap();
    (made, tenant, calls)
}

fn a_query_that_calls_too_often_traps() {
    let declaration = Declaration::new("sign", 64, 32).rate(1, 3);
    let (made, tenant, calls) = counted(declaration);
    let Err(CallError::Trap(trap)) = tenant.query("ask", &argument(10, b"note")) else {
        panic!("ten calls at once")
    };
    assert!(
        trap.message
            .contains("host.sign: called more often than 1 times a second and 3 at once"),
        "{trap:?}"
    );
    let called = calls.lock().unwrap().len();
    assert!((3..10).contains(&called), "{called} calls");
    // Another tenant has its own.
    let other = made.host.install("b", GUEST, b"").unwrap();
    let reply = other.query("ask", &argument(2, b"note")).unwrap();
    assert_eq!(reply.bytes, sign(&[7; 32], b"note"));
}

/// The same update has the same outcome however fast the host is: it waits.
fn an_update_that_calls_too_often_waits() {
    let declaration = Declaration::new("sign", 64, 32).rate(20, 2);
    let (_made, tenant, calls) = counted(declaration);
    let reply = tenant.update("sign", &argument(6, b"note")).unwrap();
    assert_eq!(reply.bytes, sign(&[7; 32], b"note"));
    let calls = calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 6);
    // Two at once, then four after 50 ms each, from the first on.
    let took = calls.last().unwrap().duration_since(calls[0]);
    assert!(took >= Duration::from_millis(190), "{took:?}");
}

fn an_update_that_would_wait_for_too_long_ends_and_changes_nothing() {
    let declaration = Declaration::new("sign", 64, 32).rate(1, 1);
    let (_made, tenant, calls) = counted(declaration);
    let version = tenant.info().version;
    let options = CallOptions {
        time: Some(Duration::from_millis(700)),
        ..CallOptions::default()
    };
    let begin = Instant::now();
    let ended = tenant.update_with("sign", &argument(1000, b"note"), &options);
    assert!(matches!(ended, Err(CallError::TimeLimit(_))), "{ended:?}");
    // Nobody waits for what can't come in time.
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(tenant.info().version, version);
    assert_eq!(calls.lock().unwrap().len(), 1);
}

fn a_program_that_calls_too_often_traps() {
    let (made, _, calls) = counted(Declaration::new("sign", 64, 32).rate(1, 1));
    let report = made.host.program(PROGRAM).run().unwrap();
    assert_eq!(report.verdict, Verdict::Trapped, "{report:?}");
    let detail = report.detail.unwrap();
    assert!(
        detail.contains("called more often than 1 times a second"),
        "{detail}"
    );
    assert_eq!(calls.lock().unwrap().len(), 1);
}

fn a_call_costs_what_is_declared() {
    let used = |fuel: u64, times: u32| {
        let (_made, tenant, _) = counted(Declaration::new("sign", 64, 32).fuel(fuel));
        let update = tenant.update("sign", &argument(times, b"note")).unwrap();
        let query = tenant.query("ask", &argument(times, b"note")).unwrap();
        assert_eq!(update.fuel_used, query.fuel_used);
        update.fuel_used
    };
    assert_eq!(used(1_000_000, 1) - used(0, 1), 1_000_000);
    assert_eq!(used(1_000_000, 4) - used(0, 4), 4_000_000);

    // It is taken before the call: what can't be paid isn't done.
    let (made, tenant, calls) = counted(Declaration::new("sign", 64, 32).fuel(1_000_000));
    let options = CallOptions {
        fuel: Some(2_500_000),
        ..CallOptions::default()
    };
    let ended = tenant.query_with("ask", &argument(5, b"note"), &options);
    assert!(matches!(ended, Err(CallError::Trap(_))), "{ended:?}");
    assert_eq!(calls.lock().unwrap().len(), 2);

    let report = made.host.program(PROGRAM).fuel(1_500_000).run().unwrap();
    assert_eq!(report.verdict, Verdict::FuelLimit, "{report:?}");
    assert_eq!(calls.lock().unwrap().len(), 3);
    let report = made.host.program(PROGRAM).fuel(2_500_000).run().unwrap();
    assert_eq!(report.verdict, Verdict::Exited, "{report:?}");
    assert!(report.fuel_used.unwrap() > 2_000_000);
}

fn what_is_offered_is_listed_and_nothing_else_can_be_called() {
    let (made, tenant, _) = counted(Declaration::new("sign", 64, 32).purpose("signs"));
    let listed: Vec<String> = made
        .host
        .offered()
        .iter()
        .map(|offered| offered.declaration.to_string())
        .collect();
    assert_eq!(
        listed,
        ["host.sign: at most 64 bytes in, 32 out; 0 fuel; any number of calls; signs"]
    );
    drop(tenant);
    let other = GUEST.replace(r#""host" "sign""#, r#""host" "other""#);
    let refused = made.host.install("b", other, b"").unwrap_err();
    assert!(refused.to_string().contains("host.other"), "{refused}");
}

fn a_bad_declaration_makes_no_host() {
    for bad in [
        Declaration::new("sign", 64, 2 << 20),
        Declaration::new("sign", 64, 32).rate(0, 1),
        Declaration::new("", 64, 32),
    ] {
        let built = harness::builder().offer(bad, |_| Ok(Vec::new())).build();
        assert!(
            matches!(built, Err(BuildError::Function { .. })),
            "{built:?}"
        );
    }
}

pub use harness::{Test, main as main_of};

harness::tests! {
    a_secret_that_is_used_for_a_tenant_is_not_in_its_worker,
    a_secret_that_is_used_for_a_program_is_not_in_its_worker,
    a_query_that_calls_too_often_traps,
    an_update_that_calls_too_often_waits,
    an_update_that_would_wait_for_too_long_ends_and_changes_nothing,
    a_program_that_calls_too_often_traps,
    a_call_costs_what_is_declared,
    what_is_offered_is_listed_and_nothing_else_can_be_called,
    a_bad_declaration_makes_no_host,
}
