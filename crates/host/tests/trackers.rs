//! What a tenant does, what it costs in fuel and the hash of its state don't
//! depend on how its pages are followed, nor on who copies them.

mod harness;

use std::process::Command;

use harness::{combinations, older_kernels, wat};
use lazaret::{BuildError, CallError, PageCopy, Reply, Tenant, TenantError, TrackerKind};

/// A byte at each of `count` places, `stride` apart, from `at` on; in stable
/// memory as well. Arguments are 64-bit numbers.
const MODULE: &str = r#"(module
  (import "ic0" "msg_arg_data_copy" (func $arg (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (import "ic0" "stable64_size" (func $stable_size (result i64)))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
  (memory 64 2048)
  (data (i32.const 40000) "every module has some data")
  (data (i32.const 1000000) "here and there")
  (global $calls (mut i64) (i64.const 0))
  (func $n (param $i i32) (result i32) (i32.load (i32.shl (local.get $i) (i32.const 3))))
  (func $arguments
    (call $arg (i32.const 0) (i32.const 0) (i32.const 32))
    (global.set $calls (i64.add (global.get $calls) (i64.const 1))))
  (func $poke
    (local $at i32) (local $left i32)
    (call $arguments)
    (local.set $at (call $n (i32.const 0)))
    (local.set $left (call $n (i32.const 1)))
    (loop $next
      (i64.store (local.get $at)
        (i64.add (i64.mul (i64.load (local.get $at)) (i64.const 31)) (i64.load (i32.const 24))))
      (local.set $at (i32.add (local.get $at) (call $n (i32.const 2))))
      (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
  (func $answer
    (i64.store (i32.const 64) (global.get $calls))
    (i64.store (i32.const 72) (i64.extend_i32_u (memory.size)))
    (i64.store (i32.const 80) (call $stable_size))
    (call $append (i32.const 64) (i32.const 24)) (call $reply))
  (func (export "canister_init") (i32.store8 (i32.const 130000) (i32.const 1)))
  (func (export "canister_update poke") (export "canister_query poke_query") (call $poke) (call $answer))
  (func (export "canister_update poke_and_trap") (export "canister_query poke_and_trap_query")
    (call $poke) (drop (memory.grow (i32.const 1)))
    (call $trap (i32.const 40000) (i32.const 12)))
  (func (export "canister_update grow")
    (call $arguments)
    (drop (memory.grow (call $n (i32.const 0))))
    ;; The new part's last page, by a bulk operation.
    (memory.fill (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 5000))
      (call $n (i32.const 3)) (i32.const 5000))
    (call $answer))
  (func (export "canister_update copy")
    (call $arguments)
    (memory.copy (call $n (i32.const 0)) (call $n (i32.const 1)) (call $n (i32.const 2)))
    (call $answer))
  (func (export "canister_update stable")
    (call $arguments)
    (drop (call $stable_grow (i64.const 3)))
    (call $stable_write (i64.load (i32.const 0)) (i64.load (i32.const 8)) (i64.load (i32.const 16)))
    (call $answer))
  (func (export "canister_update from_stable")
    (call $arguments)
    (call $stable_read (i64.load (i32.const 0)) (i64.load (i32.const 8)) (i64.load (i32.const 16)))
    (call $answer))
  (func (export "canister_update nothing") (call $reply))
  (func (export "canister_query read")
    (call $arguments) (call $append (call $n (i32.const 0)) (call $n (i32.const 1))) (call $reply)))"#;

fn numbers(numbers: [u64; 4]) -> Vec<u8> {
    numbers.map(u64::to_le_bytes).concat()
}

/// What a call answered and cost, or why it didn't, as a line.
fn line(result: Result<Reply, CallError>) -> String {
    match result {
        Ok(reply) => format!(
            "{:02x?} fuel {} version {} committed {}",
            reply.bytes,
            reply.fuel_used,
            reply.version,
            reply.committed.is_some()
        ),
        Err(CallError::Trap(trap)) => format!("{:?} {}", trap.kind, trap.message),
        Err(other) => panic!("{other}"),
    }
}

/// Numbers that look like chance, the same for every tracker.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn step(tenant: &Tenant, chance: &mut Chance) -> String {
    const HEAP: u64 = 64 << 16;
    let (count, stride) = match chance.below(4) {
        0 => (1 + chance.below(5), 4096 + chance.below(400_000)),
        1 => (1 + chance.below(400), 4096),
        2 => (1 + chance.below(2_000), 8 + chance.below(300)),
        _ => (1 + chance.below(200), 8192 + chance.below(8192)),
    };
    let count = count.min((HEAP - 300_000) / stride).max(1);
    let poke = numbers([
        200_000 + chance.below(9_000),
        count,
        stride,
        chance.below(1 << 40),
    ]);
    let (from, to, length) = (
        200_000 + chance.below(3 << 20),
        200_000 + chance.below(3 << 20),
        chance.below(300_000),
    );
    match chance.below(12) {
        0..4 => line(tenant.update("poke", &poke)),
        4 => line(tenant.update("poke_and_trap", &poke)),
        5 => line(tenant.query("poke_query", &poke)),
        6 => line(tenant.query("poke_and_trap_query", &poke)),
        7 => line(tenant.update("grow", &numbers([chance.below(3), 0, 0, chance.below(256)]))),
        8 => line(tenant.update("copy", &numbers([to, from, length, 0]))),
        9 => line(tenant.update("stable", &numbers([chance.below(90_000), from, 60_000, 0]))),
        10 => line(tenant.update(
            "from_stable",
            &numbers([to, chance.below(90_000), 70_000, 0]),
        )),
        _ => line(tenant.update("nothing", b"")),
    }
}

fn history(tracker: TrackerKind, page_copy: PageCopy, rounds: usize) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let host = older_kernels::builder()
        .tracker(tracker)
        .page_copy(page_copy)
        .cache_dir(harness::cache())
        .data_dir(directory.path())
        .relaxed_durability()
        .build()
        .unwrap();
    let tenant = host.install("t", MODULE.as_bytes(), b"").unwrap();
    let mut chance = Chance(7);
    let mut history = Vec::new();
    for round in 0..rounds {
        let line = step(&tenant, &mut chance);
        let state = tenant.state_hash().unwrap();
        history.push(format!("{round}: {line} {:02x?}", state.hash));
        match round % 29 {
            13 => tenant.sleep(),
            27 => tenant.compact().unwrap(),
            _ => {}
        }
    }
    for half in [96, 2 << 20] {
        let read = tenant.query("read", &numbers([half, (2 << 20) - 96, 0, 0]));
        history.push(format!("{:x?}", read.unwrap().bytes));
    }
    history
}

fn results_fuel_and_state_hashes_do_not_depend_on_the_tracker() {
    let mut first: Option<Vec<String>> = None;
    for &(name, tracker, page_copy) in combinations() {
        let found = history(tracker, page_copy, 120);
        assert!(
            found.iter().any(|line| line.contains("every module")),
            "a trap"
        );
        let expected = first.get_or_insert_with(|| found.clone());
        for (found, expected) in found.iter().zip(&*expected) {
            assert!(found == expected, "{name}:\n{found:.300}\n{expected:.300}");
        }
    }
}

fn a_receipt_says_how_pages_are_followed() {
    for &(name, tracker, page_copy) in combinations() {
        let directory = tempfile::tempdir().unwrap();
        let host = older_kernels::builder()
            .tracker(tracker)
            .page_copy(page_copy)
            .cache_dir(harness::cache())
            .data_dir(directory.path())
            .build()
            .unwrap();
        let tenant = host.install("t", wat("counter32"), b"").unwrap();
        let pages = tenant.receipt().unwrap().pages.unwrap();
        assert_eq!(pages.tracker, tracker.name());
        let by_worker = page_copy == PageCopy::Worker;
        assert_eq!(pages.copied_by, if by_worker { "worker" } else { "host" });
        assert!(name.starts_with(pages.tracker));
    }
}

/// Names the process that has a filter as a container may have.
const FILTERED: &str = "LAZARET_TEST_FILTERED";

/// Where another process's memory can't be reached, and there is no
/// userfaultfd, tenants run all the same, unless it is asked for just that.
fn what_a_container_forbids_is_done_without() {
    let status = Command::new(std::env::current_exe().unwrap())
        .env(FILTERED, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

fn filtered() {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
    let forbidden = [
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_userfaultfd,
    ];
    let filter = SeccompFilter::new(
        forbidden.map(|number| (number, Vec::new())).into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
    );
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let build = |tracker, page_copy| {
        older_kernels::builder()
            .tracker(tracker)
            .page_copy(page_copy)
            .cache_dir(harness::cache())
            .data_dir(directory.path())
            .build()
    };
    for tracker in [TrackerKind::Auto, TrackerKind::Signal] {
        let host = build(tracker, PageCopy::Auto).unwrap();
        let tenant = host
            .install(tracker.name(), MODULE.as_bytes(), b"")
            .unwrap();
        assert_eq!(tenant.receipt().unwrap().pages.unwrap().copied_by, "worker");
        let poke = numbers([200_000, 700, 4096, 9]);
        let before = tenant.query("read", &numbers([200_000, 8, 0, 0])).unwrap();
        tenant.update("poke_and_trap", &poke).unwrap_err();
        let trapped = tenant.query("read", &numbers([200_000, 8, 0, 0])).unwrap();
        assert_eq!(trapped.bytes, before.bytes);
        let reply = tenant.update("poke", &poke).unwrap();
        assert!(reply.committed.unwrap().pages >= 700);
        tenant.sleep();
        let kept = tenant.query("read", &numbers([200_000 + 699 * 4096, 8, 0, 0]));
        assert_eq!(kept.unwrap().bytes, 9u64.to_le_bytes());
    }
    let host = build(TrackerKind::Auto, PageCopy::Host).unwrap();
    match host.install("host", MODULE.as_bytes(), b"") {
        Err(TenantError::Call { error, .. }) => assert!(
            matches!(*error, CallError::PageCopy(_))
                && error.to_string().contains("process_vm_readv"),
            "{error}"
        ),
        other => panic!("{other:?}"),
    }
    match build(TrackerKind::Kernel, PageCopy::Auto) {
        Err(BuildError::KernelTracker { missing }) => {
            assert!(missing.contains("userfaultfd"), "{missing}");
        }
        other => panic!("{other:?}"),
    }
}

fn main() {
    lazaret::init();
    if std::env::var_os(FILTERED).is_some() {
        return filtered();
    }
    harness::main(&[
        (
            "heavy_results_fuel_and_state_hashes_do_not_depend_on_the_tracker",
            results_fuel_and_state_hashes_do_not_depend_on_the_tracker,
            &[],
        ),
        (
            "a_receipt_says_how_pages_are_followed",
            a_receipt_says_how_pages_are_followed,
            &[],
        ),
        (
            "what_a_container_forbids_is_done_without",
            what_a_container_forbids_is_done_without,
            &[],
        ),
    ]);
}
