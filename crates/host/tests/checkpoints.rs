//! Promise: a checkpoint puts a version on disk while calls go on; who lets go of
//! a tenant in an orderly way leaves it on disk, also with relaxed durability.

mod harness;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use harness::wat;
use lazaret::{CheckpointError, Depth, FsckEvent, Host, Tenant};

/// A call that has come to the gate, and how to let it go on.
type Held = Sender<()>;

fn host(directory: &Path) -> (Host, Receiver<Held>) {
    let (arrive, held) = channel();
    let arrive = Mutex::new(arrive);
    let host = harness::builder()
        .data_dir(directory.join("data"))
        .relaxed_durability()
        .host_function("gate", 8, 8, move |_| {
            let (go_on, wait) = channel();
            arrive.lock().unwrap().send(go_on).unwrap();
            wait.recv().map_err(|error| error.to_string())?;
            Ok(Vec::new())
        })
        .build()
        .unwrap();
    (host, held)
}

fn set(tenant: &Tenant, number: u64) -> u64 {
    let reply = tenant.update("set", &number.to_le_bytes()).unwrap();
    reply.committed.unwrap().version
}

fn read(tenant: &Tenant) -> u64 {
    let bytes = tenant.query("read", b"").unwrap().bytes;
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A copy of what is in the tenant's directory now, with its log's last byte
/// changed: opened by another host. The number that it holds, or nothing if
/// that host is told of the damage.
fn with_a_damaged_end(directory: &Path, name: &str) -> Option<u64> {
    let copy = tempfile::tempdir_in(directory).unwrap();
    let (from, to) = (directory.join("data"), copy.path().join("data"));
    copy_all(&from, &to);
    let logs = fs::read_dir(to.join("tenants").join(name)).unwrap();
    let log = logs
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == "log"))
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&log).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&log, bytes).unwrap();
    let mut damaged = false;
    lazaret::fsck(&to, &[], Depth::Pages, &mut |event| {
        if let FsckEvent::Finding(finding) = event {
            damaged |= finding.severity == lazaret::Severity::Damage;
        }
    })
    .unwrap();
    if damaged {
        return None;
    }
    let (host, _held) = host(copy.path());
    Some(read(&host.tenant(name).unwrap()))
}

fn a_checkpoint_names_the_version_and_its_pages() {
    let directory = tempfile::tempdir().unwrap();
    let (host, _held) = host(directory.path());
    let tenant = host.install("t", wat("versions"), b"").unwrap();
    tenant.checkpoint().unwrap();
    let version = set(&tenant, 1);
    let first = tenant.checkpoint().unwrap();
    assert_eq!(first.version, version);
    assert!(first.pages >= 2 << 8, "{first:?}");
    assert!(first.pause <= first.time);
    let again = tenant.checkpoint().unwrap();
    assert_eq!((again.version, again.pages), (version, 0));
    let newer = set(&tenant, 2).max(set(&tenant, 3));
    let both = tenant.checkpoint().unwrap();
    assert_eq!((both.version, both.pages), (newer, 2 * first.pages));
    host.remove("t").unwrap();
    assert!(matches!(
        tenant.checkpoint(),
        Err(CheckpointError::Removed(name)) if name == "t"
    ));
}

/// Queries and updates go on during checkpoints, and a call that is in the
/// middle holds none up.
fn calls_go_on_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let (host, held) = host(directory.path());
    let tenant = host.install("t", wat("versions"), b"").unwrap();
    set(&tenant, 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let query = scope.spawn(|| tenant.query("hold", b"").unwrap());
        let gate = held.recv().unwrap();
        let checkpoints = scope.spawn(|| {
            let (mut count, mut last) = (0, 0);
            while !done.load(SeqCst) || count == 0 {
                let made = tenant.checkpoint().unwrap();
                assert!(made.version >= last);
                (count, last) = (count + 1, made.version);
            }
            count
        });
        for number in 2..=20 {
            let version = set(&tenant, number);
            assert_eq!(read(&tenant), number);
            if number % 5 == 0 {
                assert!(tenant.checkpoint().unwrap().version >= version);
            }
        }
        done.store(true, SeqCst);
        assert!(checkpoints.join().unwrap() > 0);
        assert!(!query.is_finished(), "it waits at its gate");
        gate.send(()).unwrap();
        query.join().unwrap();
    });
}

fn an_update_that_runs_holds_no_checkpoint_up() {
    const HOLD: &str = r#"(module
        (import "host" "gate" (func $gate (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "canister_update hold")
            (drop (call $gate (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))))"#;
    let directory = tempfile::tempdir().unwrap();
    let (host, held) = host(directory.path());
    let tenant = host.install("t", HOLD, b"").unwrap();
    std::thread::scope(|scope| {
        let update = scope.spawn(|| tenant.update("hold", b""));
        let gate = held.recv().unwrap();
        let made = tenant.checkpoint().unwrap();
        assert_eq!(made.version, tenant.info().version);
        assert_eq!(made.pause, Duration::ZERO);
        assert!(!update.is_finished());
        gate.send(()).unwrap();
        // It returns without a reply, which is its own affair.
        assert!(update.join().unwrap().is_err());
    });
}

/// What is recorded as being on disk isn't taken for the torn end of a log: a
/// large checkpoint records it, and so does the end of a host.
fn what_is_on_disk_is_no_torn_tail() {
    let directory = tempfile::tempdir().unwrap();
    {
        let (host, _held) = host(directory.path());
        let tenant = host.install("t", wat("versions"), b"").unwrap();
        // 2.5 MiB each.
        for number in 1..=8 {
            set(&tenant, number);
        }
        assert_eq!(
            with_a_damaged_end(directory.path(), "t"),
            Some(7),
            "what is in the page cache only may be torn"
        );
        assert!(tenant.checkpoint().unwrap().pause > Duration::ZERO);
        assert_eq!(with_a_damaged_end(directory.path(), "t"), None);
        set(&tenant, 9);
        assert_eq!(with_a_damaged_end(directory.path(), "t"), Some(8));
    }
    assert_eq!(with_a_damaged_end(directory.path(), "t"), None);
    let (host, _held) = host(directory.path());
    assert_eq!(read(&host.tenant("t").unwrap()), 9);
}

harness::tests! {
    a_checkpoint_names_the_version_and_its_pages,
    calls_go_on_meanwhile,
    an_update_that_runs_holds_no_checkpoint_up,
    what_is_on_disk_is_no_torn_tail,
}
