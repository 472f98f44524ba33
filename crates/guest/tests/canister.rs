//! Calls of a tenant: entry points, answers, traps, limits, the interface's
//! contract.

mod canister_harness;

use canister_harness::*;
use lazaret_wire::message::{Entry, FromWorker, Global, HostReturn, Outcome, ToWorker, TrapKind};
use lazaret_wire::{bell, layout};

/// For memory of either width: `{I}` is the pointer type.
const COUNTER: &str = r#"(module
  (import "ic0" "msg_reply" (func $msg_reply))
  (import "ic0" "msg_reply_data_append" (func $append (param {I} {I})))
  (import "ic0" "msg_reject" (func $reject (param {I} {I})))
  (import "ic0" "msg_arg_data_size" (func $arg_size (result {I})))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param {I} {I} {I})))
  (import "ic0" "msg_caller_size" (func $caller_size (result {I})))
  (import "ic0" "msg_caller_copy" (func $caller_copy (param {I} {I} {I})))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (import "ic0" "stable64_size" (func $stable_size (result i64)))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "performance_counter" (func $counter (param i32) (result i64)))
  (import "ic0" "debug_print" (func $print (param {I} {I})))
  (import "ic0" "trap" (func $trap (param {I} {I})))
  (memory 1)
  (global $calls (mut i64) (i64.const 0))
  (data ({I}.const 64) "no thanks")
  (func $answer (param $value i64)
    (i64.store ({I}.const 0) (local.get $value))
    (call $append ({I}.const 0) ({I}.const 8))
    (call $msg_reply))
  (func (export "canister_init") (i64.store ({I}.const 8) (i64.const 40)))
  (func (export "canister_update inc")
    (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
    (i64.store ({I}.const 8) (i64.add (i64.load ({I}.const 8)) (i64.const 1)))
    (call $answer (i64.load ({I}.const 8))))
  (func (export "canister_query get") (call $answer (i64.load ({I}.const 8))))
  (func (export "canister_query calls") (call $answer (global.get $calls)))
  (func (export "canister_query time") (call $answer (call $time)))
  (func (export "canister_query echo")
    (call $arg_copy ({I}.const 256) ({I}.const 0) (call $arg_size))
    (call $append ({I}.const 256) (call $arg_size))
    (call $msg_reply))
  (func (export "canister_query caller")
    (call $caller_copy ({I}.const 256) ({I}.const 0) (call $caller_size))
    (call $append ({I}.const 256) (call $caller_size))
    (call $msg_reply))
  (func (export "canister_query beyond") (call $append ({I}.const 65535) ({I}.const 2)))
  (func (export "canister_query wrapping") (call $append ({I}.const -1) ({I}.const 2)))
  (func (export "canister_update reject") (call $reject ({I}.const 64) ({I}.const 9)))
  (func (export "canister_update silent"))
  (func (export "canister_update keep")
    (drop (call $stable_grow (i64.const 1)))
    (call $stable_write (i64.const 65528) (i64.const 8) (i64.const 8))
    (call $answer (call $stable_size)))
  (func (export "canister_update kept")
    (call $stable_read (i64.const 16) (i64.const 65528) (i64.const 8))
    (call $answer (i64.load ({I}.const 16))))
  (func (export "canister_update stable_beyond") (call $stable_write (i64.const -8) (i64.const 8) (i64.const 8)))
  (func (export "canister_update stable_too_large") (call $answer (call $stable_grow (i64.const 1024))))
  (func (export "canister_query counter")
    (local $before i64)
    (local.set $before (call $counter (i32.const 0)))
    (call $answer (i64.sub (call $counter (i32.const 0)) (local.get $before))))
  (func (export "canister_update print") (call $print ({I}.const 64) ({I}.const 9)))
  (func (export "canister_update trap") (call $trap ({I}.const 64) ({I}.const 9)))
  (func $inner_work (unreachable))
  (func $outer_work (call $inner_work))
  (func (export "canister_update break") (call $outer_work))
  (func (export "canister_update for_ever") (loop $again (br $again)))
  (func (export "canister_update grow") (drop (memory.grow ({I}.const 3))) (call $answer (i64.const 1)))
)"#;

fn both(test: impl Fn(&str)) {
    for memory64 in [false, true] {
        test(&width(COUNTER, memory64));
    }
}

#[test]
fn state_is_kept_in_heap_globals_and_stable_memory() {
    both(|text| {
        let mut tenant = tenant(text);
        tenant.install();
        assert_eq!(tenant.update("inc", b""), reply(41));
        assert_eq!(tenant.update("inc", b""), reply(42));
        assert_eq!(tenant.query("get", b""), reply(42));
        assert_eq!(tenant.query("calls", b""), reply(2));
        assert_eq!(tenant.globals, [Global::I64(2)]);
        assert_eq!(tenant.update("keep", b""), reply(1));
        assert_eq!(tenant.sizes.stable, 65536);
        assert_eq!(tenant.update("kept", b""), reply(42));
    });
}

#[test]
fn globals_come_from_the_host_and_initially_from_the_module() {
    let mut tenant = tenant(&width(COUNTER, true));
    tenant.install();
    tenant.update("inc", b"");
    tenant.globals = vec![Global::I64(77)];
    assert_eq!(tenant.query("calls", b""), reply(77));
    tenant.globals.clear();
    assert_eq!(tenant.query("calls", b""), reply(0));
}

#[test]
fn arguments_callers_and_time_arrive() {
    both(|text| {
        let mut tenant = tenant(text);
        tenant.install();
        let argument: Vec<u8> = (0..=255).collect();
        assert_eq!(tenant.query("echo", &argument), Outcome::Reply(argument));
        assert_eq!(tenant.query("caller", b""), Outcome::Reply(vec![1, 2, 3]));
        assert_eq!(tenant.query("time", b""), reply(1_700_000_000_000_000_000));
        tenant.update("print", b"");
        assert_eq!(tenant.log(), ["no thanks"]);
    });
}

#[test]
fn a_call_ends_in_a_reply_a_reject_neither_or_no_method() {
    both(|text| {
        let mut tenant = tenant(text);
        tenant.install();
        assert_eq!(
            tenant.update("reject", b""),
            Outcome::Reject("no thanks".to_owned())
        );
        assert_eq!(tenant.update("silent", b""), Outcome::NoReply);
        assert_eq!(tenant.update("nothing", b""), Outcome::NoMethod);
        assert_eq!(
            tenant.query("inc", b""),
            Outcome::NoMethod,
            "an update is no query"
        );
        assert_eq!(tenant.update("get", b""), reply(40), "a query is an update");
    });
}

#[test]
fn traps_have_a_kind_words_and_a_backtrace_with_names() {
    both(|text| {
        let mut tenant = tenant(text);
        tenant.install();
        let broken = trap(tenant.update("break", b""));
        assert_eq!(broken.kind, TrapKind::Unreachable);
        let lines: Vec<&str> = broken.backtrace.lines().collect();
        assert!(
            lines
                .first()
                .is_some_and(|line| line.contains("inner_work")),
            "{}",
            broken.backtrace
        );
        assert!(
            lines.get(1).is_some_and(|line| line.contains("outer_work")),
            "{}",
            broken.backtrace
        );
        let explicit = trap(tenant.update("trap", b""));
        assert_eq!(
            (explicit.kind, explicit.message.as_str()),
            (TrapKind::Explicit, "no thanks")
        );
        assert!(!explicit.backtrace.is_empty());
        // The instance is as good as before.
        assert_eq!(tenant.update("inc", b""), reply(41));
    });
}

#[test]
fn pointers_beyond_the_memory_trap() {
    both(|text| {
        let mut tenant = tenant(text);
        tenant.install();
        assert_trap(
            tenant.query("beyond", b""),
            TrapKind::MemoryOutOfBounds,
            "2 bytes at 65535 are beyond the heap of 65536 bytes",
        );
        assert_trap(
            tenant.query("wrapping", b""),
            TrapKind::MemoryOutOfBounds,
            "beyond the heap",
        );
        assert_trap(
            tenant.update("stable_beyond", b""),
            TrapKind::MemoryOutOfBounds,
            "beyond the stable memory of 0 bytes",
        );
    });
}

#[test]
fn fuel_runs_out_and_is_counted_the_same_each_time() {
    both(|text| {
        let mut tenant = tenant(text);
        tenant.install();
        tenant.next.fuel = 1_000_000;
        let done = tenant.run(Entry::Update, "for_ever", b"");
        assert_trap(done.outcome, TrapKind::Fuel, "fuel");
        assert_eq!(done.fuel_left, 0);
        let left = |tenant: &mut Tenant| tenant.run(Entry::Query, "get", b"").fuel_left;
        let first = left(&mut tenant);
        assert!(first < 1_000_000);
        assert_eq!(first, left(&mut tenant));
        let used = 1_000_000 - first;
        tenant.next.fuel = used;
        assert_eq!(tenant.query("get", b""), reply(40));
        tenant.next.fuel = used - 1;
        assert_trap(tenant.query("get", b""), TrapKind::Fuel, "fuel");
        tenant.next.fuel = u64::MAX;
        assert_eq!(
            tenant.run(Entry::Query, "get", b"").fuel_left,
            u64::MAX - used
        );
        // Two counters with one system call and a few instructions between.
        let Outcome::Reply(bytes) = tenant.query("counter", b"") else {
            panic!("no reply")
        };
        let between = u64::from_le_bytes(bytes.try_into().unwrap());
        assert!(
            (lazaret_guest::canister::costs::SYSTEM_CALL..200).contains(&between),
            "{between}"
        );
    });
}

#[test]
fn the_recursion_limit_is_exact_and_comes_before_the_native_stack() {
    const DEEP: &str = r#"(module
      (import "ic0" "msg_reply" (func $msg_reply))
      (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
      (memory 1)
      (func $deep (param $left i32)
        (if (local.get $left) (then (call $deep (i32.sub (local.get $left) (i32.const 1))))))
      (func (export "canister_update deep")
        (call $arg_copy (i32.const 0) (i32.const 0) (i32.const 4))
        (call $deep (i32.load (i32.const 0)))
        (call $msg_reply)))"#;
    with_worker_stack(|| {
        let mut tenant = tenant(DEEP);
        tenant.install();
        // One unit for the entry point, one for each call of `$deep`.
        let most = lazaret_instrument::RECURSION_LIMIT - 2;
        assert_eq!(
            tenant.update("deep", &most.to_le_bytes()),
            Outcome::Reply(Vec::new())
        );
        let stopped = trap(tenant.update("deep", &(most + 1).to_le_bytes()));
        assert_eq!(stopped.kind, TrapKind::Recursion);
        assert_eq!(
            stopped.backtrace.lines().count(),
            lazaret_guest::engine::MAX_FRAMES
        );
        assert_eq!(
            tenant.update("deep", &most.to_le_bytes()),
            Outcome::Reply(Vec::new())
        );
    });
}

#[test]
fn growth_beyond_the_limit_gives_minus_one() {
    both(|text| {
        let mut limits = setup();
        limits.heap_limit = 3 << 16;
        limits.stable_limit = 1023 << 16;
        let mut tenant = load(text, limits, Vec::new(), false).unwrap();
        tenant.install();
        let done = tenant.run(Entry::Update, "grow", b"");
        assert_eq!((done.outcome, done.sizes.heap), (reply(1), 1 << 16));
        assert_eq!(tenant.update("stable_too_large", b""), reply(u64::MAX));
        let mut tenant = canister_harness::tenant(text);
        tenant.install();
        assert_eq!(tenant.run(Entry::Update, "grow", b"").sizes.heap, 4 << 16);
    });
}

/// A module whose one entry point is the system call under test.
fn one_call(import: &str, export: &str, call: &str) -> Tenant {
    tenant(&format!(
        r#"(module (import "ic0" {import}) (import "ic0" "msg_reply" (func $reply)) (memory 1)
           (func $use (drop (i32.const 0))) (func (export "{export}") {call}))"#
    ))
}

#[test]
fn system_calls_are_allowed_where_the_interface_says() {
    let refused = |import: &str, export: &str, call: &str, entry: Entry, part: &str| {
        let outcome = one_call(import, export, call).run(entry, "m", b"").outcome;
        assert_trap(outcome, TrapKind::Contract, part);
    };
    let (query, update) = ("canister_query m", "canister_update m");
    let append = r#""msg_reply_data_append" (func $c (param i32 i32))"#;
    refused(
        append,
        "canister_init",
        "(call $c (i32.const 0) (i32.const 0))",
        Entry::Install,
        "ic0.msg_reply_data_append: can't be called in canister_init",
    );
    refused(
        append,
        "canister_pre_upgrade",
        "(call $c (i32.const 0) (i32.const 0))",
        Entry::PreUpgrade,
        "canister_pre_upgrade",
    );
    let certify = r#""certified_data_set" (func $c (param i32 i32))"#;
    refused(
        certify,
        query,
        "(call $c (i32.const 0) (i32.const 1))",
        Entry::Query,
        "can't be called in a query",
    );
    refused(
        certify,
        query,
        "(call $c (i32.const 0) (i32.const 1))",
        Entry::Update,
        "can't be called in a query called as an update",
    );
    refused(
        certify,
        update,
        "(call $c (i32.const 0) (i32.const 33))",
        Entry::Update,
        "33 bytes are over the limit of 32",
    );
    let timer = r#""global_timer_set" (func $c (param i64) (result i64))"#;
    refused(
        timer,
        query,
        "(drop (call $c (i64.const 1)))",
        Entry::Query,
        "can't be called in a query",
    );
    let rejected = r#""msg_reject_code" (func $c (result i32))"#;
    refused(
        rejected,
        update,
        "(drop (call $c))",
        Entry::Update,
        "can't be called in an update",
    );
    let certificate = r#""data_certificate_size" (func $c (result i32))"#;
    refused(
        certificate,
        query,
        "(drop (call $c))",
        Entry::Query,
        "there is no certificate",
    );
    refused(
        append,
        update,
        "(call $reply) (call $c (i32.const 0) (i32.const 0))",
        Entry::Update,
        "replied to already",
    );
    refused(
        append,
        update,
        "(call $reply) (call $reply)",
        Entry::Update,
        "ic0.msg_reply: the call has been replied to already",
    );
    let call_new = r#""call_new" (func $c (param i32 i32 i32 i32 i32 i32 i32 i32))"#;
    let zeros = "(i32.const 0)".repeat(8);
    refused(
        call_new,
        update,
        &format!("(call $c {zeros})"),
        Entry::Update,
        "ic0.call_new: calls between tenants are not supported yet",
    );
    let perform = r#""call_perform" (func $c (result i32))"#;
    refused(
        perform,
        update,
        "(drop (call $c))",
        Entry::Update,
        "no call has been begun",
    );
}

#[test]
fn the_start_function_runs_at_install_and_has_few_system_calls() {
    let module = |body: &str| {
        format!(
            r#"(module (import "ic0" "time" (func $time (result i64))) (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
               (memory 1) (func $start {body}) (start $start))"#
        )
    };
    let mut timed = tenant(&module("(drop (call $time))"));
    assert_trap(
        timed.run(Entry::Install, "", b"").outcome,
        TrapKind::Contract,
        "can't be called in the start function",
    );
    let mut grown = tenant(&module("(drop (call $grow (i64.const 2)))"));
    assert_eq!(grown.sizes.stable, 0);
    grown.install();
    assert_eq!(grown.sizes.stable, 2 << 16);
    let mut looping = tenant(&module("(loop (br 0))"));
    looping.next.fuel = 100_000;
    assert_trap(
        looping.run(Entry::Install, "", b"").outcome,
        TrapKind::Fuel,
        "fuel",
    );
}

#[test]
fn effects_come_back_from_success_and_not_from_a_trap() {
    const EFFECTS: &str = r#"(module
      (import "ic0" "certified_data_set" (func $certify (param i64 i64)))
      (import "ic0" "global_timer_set" (func $timer (param i64) (result i64)))
      (import "ic0" "cycles_burn128" (func $burn (param i64 i64 i64)))
      (import "ic0" "canister_cycle_balance" (func $balance (result i64)))
      (memory i64 1) (data (i64.const 0) "abc")
      (func $act (call $certify (i64.const 0) (i64.const 3))
        (if (i64.ne (call $timer (i64.const 5)) (i64.const 0)) (then unreachable))
        (if (i64.ne (call $timer (i64.const 6)) (i64.const 5)) (then unreachable))
        (call $burn (i64.const 0) (i64.const 400) (i64.const 16))
        (if (i64.ne (call $balance) (i64.const 600)) (then unreachable))
        (call $burn (i64.const 1) (i64.const 0) (i64.const 16))
        (if (i64.ne (i64.load (i64.const 16)) (i64.const 600)) (then unreachable)))
      (func (export "canister_update act") (call $act))
      (func (export "canister_update act_and_trap") (call $act) (unreachable)))"#;
    let mut tenant = tenant(EFFECTS);
    tenant.install();
    let done = tenant.run(Entry::Update, "act", b"");
    assert_eq!(done.outcome, Outcome::NoReply);
    assert_eq!(done.effects.certified_data.as_deref(), Some(&b"abc"[..]));
    assert_eq!(
        (done.effects.global_timer, done.effects.cycles_burned),
        (Some(6), 1_000)
    );
    let done = tenant.run(Entry::Update, "act_and_trap", b"");
    assert_eq!(
        (trap(done.outcome).kind, done.effects),
        (TrapKind::Unreachable, Default::default())
    );
}

#[test]
fn the_certificate_is_there_for_queries_only() {
    const CERTIFICATE: &str = r#"(module
      (import "ic0" "data_certificate_present" (func $present (result i32)))
      (import "ic0" "data_certificate_size" (func $size (result i32)))
      (import "ic0" "data_certificate_copy" (func $copy (param i32 i32 i32)))
      (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
      (import "ic0" "msg_reply" (func $reply))
      (memory 1)
      (func (export "canister_query m")
        (if (call $present) (then
          (call $copy (i32.const 8) (i32.const 1) (i32.sub (call $size) (i32.const 1)))
          (call $append (i32.const 8) (i32.sub (call $size) (i32.const 1)))))
        (call $reply)))"#;
    let mut tenant = tenant(CERTIFICATE);
    tenant.install();
    tenant.next.certificate = Some(b"certificate".to_vec());
    assert_eq!(
        tenant.query("m", b""),
        Outcome::Reply(b"ertificate".to_vec())
    );
    assert_eq!(tenant.update("m", b""), Outcome::Reply(Vec::new()));
    tenant.next.certificate = None;
    assert_eq!(tenant.query("m", b""), Outcome::Reply(Vec::new()));
}

#[test]
fn upgrades_run_their_entry_points() {
    const UPGRADED: &str = r#"(module
      (import "ic0" "msg_reply" (func $reply)) (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
      (memory 1) (data (i32.const 0) "A")
      (func (export "canister_pre_upgrade") (i32.store8 (i32.const 1) (i32.const 66)))
      (func (export "canister_post_upgrade") (i32.store8 (i32.const 2) (i32.const 67)))
      (func (export "canister_query m") (call $append (i32.const 0) (i32.const 4)) (call $reply)))"#;
    let mut tenant = tenant(UPGRADED);
    assert_eq!(
        tenant.run(Entry::PostUpgradeKeepingHeap, "", b"").outcome,
        Outcome::Reply(Vec::new())
    );
    assert_eq!(
        tenant.query("m", b""),
        Outcome::Reply(b"\0\0C\0".to_vec()),
        "data segments are not written"
    );
    assert_eq!(
        tenant.run(Entry::PostUpgrade, "", b"").outcome,
        Outcome::Reply(Vec::new())
    );
    assert_eq!(
        tenant.run(Entry::PreUpgrade, "", b"").outcome,
        Outcome::Reply(Vec::new())
    );
    assert_eq!(tenant.query("m", b""), Outcome::Reply(b"ABC\0".to_vec()));
}

#[test]
fn what_is_not_provided_is_listed() {
    let fails = |text: &str| {
        load(text, setup(), Vec::new(), false)
            .err()
            .unwrap()
            .message
    };
    let unknown = fails(
        r#"(module (import "env" "foo" (func)) (import "ic0" "time" (func (result i64))) (import "ic0" "bar" (func)) (import "host" "f" (func)) (memory 1))"#,
    );
    assert_eq!(
        unknown,
        "the module imports what Lazaret does not provide: env.foo, ic0.bar, host.f"
    );
    let typed = fails(
        r#"(module (import "ic0" "msg_reply_data_append" (func (param i32 i32))) (memory i64 1))"#,
    );
    assert!(
        typed.contains("ic0.msg_reply_data_append as") && typed.contains("i64"),
        "{typed}"
    );
    let entry = fails(r#"(module (memory 1) (func (export "canister_update m") (param i32)))"#);
    assert!(entry.contains("\"canister_update m\""), "{entry}");
    let large = fails("(module (memory 2000))");
    assert!(
        large.contains("131072000 bytes") && large.contains("limit of 67108864"),
        "{large}"
    );
}

/// Keeps a number in its table, which no two calls may share.
const TABLE: &str = r#"(module
  (import "ic0" "msg_reply" (func $reply)) (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (memory 1) (global $n (mut i32) (i32.const 5)) (table 4 funcref) (elem declare func $f) (func $f)
  (func (export "canister_update m")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (global.set $n (i32.add (global.get $n) (i32.const 1)))
    (i32.store (i32.const 4) (ref.is_null (table.get (i32.const 1))))
    (i32.store (i32.const 8) (global.get $n))
    (table.set (i32.const 1) (ref.func $f))
    (call $append (i32.const 0) (i32.const 12)) (call $reply)))"#;

#[test]
fn an_instance_that_can_be_told_apart_is_not_kept() {
    let mut tenant = tenant(TABLE);
    tenant.install();
    for call in 1..4u32 {
        let expected: Vec<u8> = [call, 1, 5 + call]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(tenant.update("m", b""), Outcome::Reply(expected));
    }
}

#[test]
fn a_kept_instance_equals_a_fresh_one_for_each_call() {
    let text = width(COUNTER, true);
    let mut kept = load(&text, setup(), Vec::new(), false).unwrap();
    let mut fresh = load(&text, setup(), Vec::new(), true).unwrap();
    assert_eq!(
        kept.run(Entry::Install, "", b""),
        fresh.run(Entry::Install, "", b"")
    );
    kept.next.fuel = 200_000;
    fresh.next.fuel = 200_000;
    for method in [
        "inc", "break", "inc", "for_ever", "keep", "grow", "kept", "inc", "trap", "silent", "get",
        "reject", "nothing", "inc",
    ] {
        assert_eq!(
            kept.run(Entry::Update, method, b""),
            fresh.run(Entry::Update, method, b""),
            "{method}"
        );
    }
    assert_eq!(kept.query("calls", b""), reply(4));
}

const HOST: &str = r#"(module
  (import "host" "ask" (func $ask (param i64 i64 i64 i64) (result i64)))
  (import "ic0" "msg_reply" (func $reply)) (import "ic0" "msg_reply_data_append" (func $append (param i64 i64)))
  (memory i64 1) (data (i64.const 0) "question")
  (func (export "canister_update m")
    (i64.store (i64.const 32) (call $ask (i64.const 0) (i64.const 8) (i64.const 16) (i64.const 4)))
    (call $append (i64.const 16) (i64.const 24)) (call $reply))
  (func (export "canister_update beyond") (drop (call $ask (i64.const 0) (i64.const 8) (i64.const 65530) (i64.const 8)))))"#;

/// Answers one host call as the host would.
fn answer_one(
    shared: &'static lazaret_wire::Shared,
    number: u32,
    result: Result<Vec<u8>, String>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        use lazaret_wire::codec::Message;
        let bell = shared.u32(layout::ANSWER_BELL);
        let rung = bell::wait_forever(
            bell,
            shared.u32(layout::HOST_SLEEPS),
            number - 1,
            &mut lazaret_wire::Spin::at_most(0),
        );
        assert_eq!(rung, lazaret_wire::Rung::Next);
        let mut bytes = Vec::new();
        shared.take_answer(&mut bytes).unwrap();
        let FromWorker::HostCall(call) = FromWorker::from_bytes(&bytes).unwrap() else {
            panic!("no host call")
        };
        assert_eq!((call.function, call.argument), (1, b"question".to_vec()));
        ToWorker::HostReturn(HostReturn { result })
            .to_bytes(&mut bytes)
            .unwrap();
        shared.put_request(&bytes).unwrap();
        bell::ring(
            shared.u32(layout::REQUEST_BELL),
            shared.u32(layout::WORKER_SLEEPS),
            number,
        );
    })
}

#[test]
fn functions_of_the_embedder_answer_or_trap() {
    let mut with = setup();
    with.host_functions = ["other", "ask"]
        .map(|name| lazaret_wire::message::ProvidedFunction {
            name: name.to_owned(),
            fuel: 0,
        })
        .to_vec();
    let mut tenant = load(HOST, with, Vec::new(), false).unwrap();
    tenant.install();
    let host = answer_one(tenant.shared, 1, Ok(b"answer".to_vec()));
    let mut expected = b"answ".to_vec();
    expected.resize(16, 0);
    expected.extend(6u64.to_le_bytes());
    assert_eq!(tenant.update("m", b""), Outcome::Reply(expected));
    host.join().unwrap();
    let host = answer_one(tenant.shared, 2, Err("not today".to_owned()));
    assert_trap(
        tenant.update("m", b""),
        TrapKind::Other,
        "host.ask: not today",
    );
    host.join().unwrap();
    assert_trap(
        tenant.update("beyond", b""),
        TrapKind::MemoryOutOfBounds,
        "8 bytes at 65530",
    );
}

#[test]
fn the_fixture_counter_keeps_its_three_numbers() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/wat/counter32.wat"
    );
    let mut tenant = tenant(&std::fs::read_to_string(path).unwrap());
    let installed = tenant.run(Entry::Install, "", &5u64.to_le_bytes());
    assert_eq!(installed.outcome, Outcome::Reply(Vec::new()));
    assert_eq!(tenant.update("inc", b""), reply(6));
    assert_eq!(tenant.update("add", &10u64.to_le_bytes()), reply(16));
    let numbers: Vec<u8> = [16u64, 1, 1]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    assert_eq!(tenant.query("get", b""), Outcome::Reply(numbers));
    assert_trap(
        tenant.update("trap_after_inc", b""),
        TrapKind::Explicit,
        "trapped on purpose",
    );
    assert_trap(
        tenant.update("reply_twice", b""),
        TrapKind::Contract,
        "replied to already",
    );
}
