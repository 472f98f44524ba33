//! A tenant keeps its state: what an update wrote is there for the next call,
//! what a query or a trapped update wrote is not.

mod harness;

use candid::{Decode, Encode, Nat};
use harness::{fixture, host, wat};
use lazaret::{CallError, CallOptions, Tenant, TenantError, TrapKind};

fn canister(name: &str) -> Vec<u8> {
    fixture(&format!("canisters/{name}.wasm"))
}

fn nat(tenant: &Tenant, method: &str, query: bool) -> Nat {
    let argument = Encode!().unwrap();
    let reply = if query {
        tenant.query(method, &argument)
    } else {
        tenant.update(method, &argument)
    };
    Decode!(&reply.unwrap().bytes, Nat).unwrap()
}

fn u64s(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()))
        .collect()
}

/// A Motoko counter (64-bit memory) counts, also after its worker has gone and
/// after the host was opened again.
fn a_motoko_counter_keeps_its_count() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        harness::builder()
            .data_dir(directory.path().join("data"))
            .build()
            .unwrap()
    };
    {
        let host = open();
        let tenant = host
            .install("counter", canister("counter"), &Encode!().unwrap())
            .unwrap();
        assert_eq!(nat(&tenant, "inc", false), 1u64);
        assert_eq!(nat(&tenant, "inc", false), 2u64);
        // A query's increment is put back.
        assert_eq!(nat(&tenant, "incInQuery", true), 3u64);
        assert_eq!(nat(&tenant, "incInQuery", true), 3u64);
        assert_eq!(nat(&tenant, "get", true), 2u64);
        tenant.sleep();
        assert_eq!(nat(&tenant, "get", true), 2u64);
        assert_eq!(nat(&tenant, "inc", false), 3u64);
    }
    let host = open();
    assert_eq!(host.tenants().unwrap(), ["counter"]);
    let tenant = host.tenant("counter").unwrap();
    assert_eq!(nat(&tenant, "get", true), 3u64);
    let reply = tenant
        .update("set", &Encode!(&Nat::from(1_000_000_000_000u64)).unwrap())
        .unwrap();
    assert!(reply.committed.is_some());
    assert_eq!(nat(&tenant, "get", true), Nat::from(1_000_000_000_000u64));
}

/// A large array and a hash map, through growth, restart and fold.
fn heavy_a_large_state_survives() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        harness::builder()
            .data_dir(directory.path().join("data"))
            .relaxed_durability()
            .build()
            .unwrap()
    };
    let size = 2_000_000u64;
    let (sum, entries) = {
        let host = open();
        let tenant = host
            .install("memory", canister("memory"), &Encode!().unwrap())
            .unwrap();
        tenant
            .update("fill", &Encode!(&Nat::from(size)).unwrap())
            .unwrap();
        tenant
            .update(
                "insert",
                &Encode!(&Nat::from(0u64), &Nat::from(2000u64)).unwrap(),
            )
            .unwrap();
        for stride in [1_000u64, 777, 50_000] {
            tenant
                .update("touch", &Encode!(&Nat::from(stride)).unwrap())
                .unwrap();
        }
        assert!(tenant.info().heap_bytes > 8 * size, "{:?}", tenant.info());
        let sum = Decode!(
            &tenant.query("sum", &Encode!().unwrap()).unwrap().bytes,
            u64
        )
        .unwrap();
        (sum, nat(&tenant, "entries", true))
    };
    let host = open();
    let tenant = host.tenant("memory").unwrap();
    for _ in 0..2 {
        assert_eq!(
            Decode!(
                &tenant.query("sum", &Encode!().unwrap()).unwrap().bytes,
                u64
            )
            .unwrap(),
            sum
        );
        assert_eq!(nat(&tenant, "entries", true), entries);
        let found = tenant
            .query("lookup", &Encode!(&Nat::from(1234u64)).unwrap())
            .unwrap();
        assert!(Decode!(&found.bytes, Option<String>).unwrap().is_some());
        tenant.sleep();
    }
}

/// A trap half-way through an update leaves the state before it, in the same
/// worker, and says where it happened.
fn a_trap_half_way_changes_nothing() {
    let (_directory, host) = host();
    let tenant = host
        .install("trap", canister("trap"), &Encode!().unwrap())
        .unwrap();
    tenant.update("succeed", &Encode!().unwrap()).unwrap();
    let state = || tenant.query("state", &Encode!().unwrap()).unwrap().bytes;
    let before = state();
    let worker = tenant.info().worker;
    match tenant.update("trapHalfway", &Encode!().unwrap()) {
        Err(CallError::Trap(trap)) => {
            assert!(!trap.backtrace.is_empty());
            assert!(trap.backtrace.contains("trapHalfway"), "{}", trap.backtrace);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(state(), before);
    match tenant.update("divideByZero", &Encode!(&Nat::from(1u64)).unwrap()) {
        Err(CallError::Trap(_)) => {}
        other => panic!("{other:?}"),
    }
    match tenant.query("trapInQuery", &Encode!().unwrap()) {
        Err(CallError::Trap(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(state(), before);
    assert_eq!(
        tenant.info().worker,
        worker,
        "a trap is no reason for a new worker"
    );
    tenant.update("succeed", &Encode!().unwrap()).unwrap();
    assert_ne!(state(), before);
}

/// Endless loops, recursion and growth end in a trap of the tenant's own
/// limits, and the tenant goes on.
fn the_tenant_s_own_limits_end_in_traps() {
    let directory = tempfile::tempdir().unwrap();
    let host = harness::builder()
        .data_dir(directory.path())
        .tenant_limits(|limits| {
            limits.update_fuel = 200_000_000;
            limits.heap = 256 << 20;
        })
        .build()
        .unwrap();
    let tenant = host
        .install("trap", canister("trap"), &Encode!().unwrap())
        .unwrap();
    let kind = |method: &str| match tenant.update(method, &Encode!().unwrap()) {
        Err(CallError::Trap(trap)) => trap.kind,
        other => panic!("{method}: {other:?}"),
    };
    assert_eq!(kind("loopForever"), TrapKind::Fuel);
    assert_eq!(kind("recurseForever"), TrapKind::Recursion);
    // Motoko's run time traps by itself when its memory can't grow.
    assert!(matches!(
        kind("allocateForever"),
        TrapKind::Explicit | TrapKind::Fuel | TrapKind::Unreachable
    ));
    tenant.update("succeed", &Encode!().unwrap()).unwrap();
}

/// Stable memory: what is written is kept, what a trap wrote is not.
fn stable_memory_is_part_of_the_state() {
    let (_directory, host) = host();
    let tenant = host
        .install("stable", canister("stable"), &Encode!().unwrap())
        .unwrap();
    tenant.update("grow", &Encode!(&10u64).unwrap()).unwrap();
    tenant
        .update("write", &Encode!(&600_000u64, &77u64).unwrap())
        .unwrap();
    let read = |offset: u64| {
        Decode!(
            &tenant
                .query("read", &Encode!(&offset).unwrap())
                .unwrap()
                .bytes,
            u64
        )
        .unwrap()
    };
    assert_eq!(read(600_000), 77);
    assert!(matches!(
        tenant.update("writeThenTrap", &Encode!(&600_000u64, &78u64).unwrap()),
        Err(CallError::Trap(_))
    ));
    assert!(matches!(
        tenant.update("growThenTrap", &Encode!(&100u64).unwrap()),
        Err(CallError::Trap(_))
    ));
    assert_eq!(read(600_000), 77);
    tenant.sleep();
    assert_eq!(read(600_000), 77);
    assert!(tenant.info().stable_bytes >= 10 * 65_536);
}

/// A canister with 32-bit memory, written by hand: heap, global and stable
/// memory move together.
fn heap_global_and_stable_memory_move_together() {
    let (_directory, host) = host();
    let tenant = host
        .install("counter32", wat("counter32"), &7u64.to_le_bytes())
        .unwrap();
    let get = || u64s(&tenant.query("get", b"").unwrap().bytes);
    assert_eq!(get(), [7, 0, 0]);
    tenant.update("inc", b"").unwrap();
    assert_eq!(get(), [8, 1, 1]);
    tenant.query("inc_in_query", b"").unwrap();
    assert_eq!(get(), [8, 1, 1]);
    for (method, kind) in [
        ("trap_after_inc", TrapKind::Explicit),
        ("unreachable_after_inc", TrapKind::Unreachable),
        ("recurse_after_inc", TrapKind::Recursion),
        ("reply_twice", TrapKind::Contract),
    ] {
        match tenant.update(method, b"") {
            Err(CallError::Trap(trap)) => assert_eq!(trap.kind, kind, "{method}: {trap:?}"),
            other => panic!("{method}: {other:?}"),
        }
        assert_eq!(get(), [8, 1, 1], "{method}");
    }
    // A reject is an answer: what was written is kept.
    assert!(matches!(
        tenant.update("reject_after_inc", b""),
        Err(CallError::Reject(_))
    ));
    assert_eq!(get(), [9, 2, 2]);
    assert!(matches!(
        tenant.update("no_reply", b""),
        Err(CallError::NoReply)
    ));
    tenant.sleep();
    assert_eq!(get(), [10, 3, 3]);
}

/// What a call knows: its argument, its caller, the time, and its log.
fn a_call_knows_its_caller_and_its_log_is_kept() {
    let (_directory, host) = host();
    let tenant = host.install("counter32", wat("counter32"), b"").unwrap();
    assert_eq!(tenant.query("echo", b"hello").unwrap().bytes, b"hello");
    let options = CallOptions {
        caller: vec![1, 2, 3],
        ..CallOptions::default()
    };
    assert_eq!(
        tenant.query_with("caller", b"", &options).unwrap().bytes,
        [1, 2, 3]
    );
    assert_eq!(
        tenant.query("caller", b"").unwrap().bytes,
        lazaret::ANONYMOUS
    );
    let time = u64s(&tenant.query("time", b"").unwrap().bytes)[0];
    assert!(time > 1_700_000_000_000_000_000);
    tenant.update("print", b"a line").unwrap();
    let logs = tenant.logs().unwrap();
    assert!(logs.iter().any(|line| line.text == "a line"), "{logs:?}");
}

/// A real Rust canister (32-bit memory, no initialiser).
fn a_rust_cdk_canister_answers() {
    let (_directory, host) = host();
    let tenant = host.install("azle", canister("azle"), b"").unwrap();
    let reply = tenant
        .query("_azle_heap_allocation", &Encode!().unwrap())
        .unwrap();
    assert_eq!(Decode!(&reply.bytes, u32).unwrap(), 0);
}

/// Calls that can't be: each an error that says what is wrong.
fn calls_that_can_not_be_are_refused() {
    let (_directory, host) = host();
    let tenant = host.install("counter32", wat("counter32"), b"").unwrap();
    match tenant.update("no such", b"") {
        Err(CallError::NoMethod { method, known, .. }) => {
            assert!(method == "no such" && known.contains(&"inc".to_owned()))
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        tenant.query("inc", b""),
        Err(CallError::NoMethod { kind: "query", .. })
    ));
    assert!(matches!(
        tenant.update("inc", &vec![0; (2 << 20) + 1]),
        Err(CallError::ArgumentTooLarge { .. })
    ));
    tenant.update("inc", &vec![0; 2 << 20]).unwrap();
}

/// Installs that can't be leave nothing behind.
fn installs_that_can_not_be_leave_nothing() {
    let (directory, host) = host();
    for name in ["", "..", "a/b", "a\0b", &"x".repeat(300)] {
        assert!(
            matches!(
                host.install(name, wat("counter32"), b""),
                Err(TenantError::Name { .. })
            ),
            "{name:?}"
        );
    }
    let message = |module: Vec<u8>| {
        host.install("bad", module, b"")
            .expect_err("it was installed")
            .to_string()
    };
    assert!(message(wat("hello")).contains("canister_"));
    assert!(message(wat("canister_unknown_import")).contains("does not provide"));
    assert!(message(wat("canister_init_trap")).starts_with("install: trapped"));
    assert!(message(wat("component")).contains("component"));
    assert!(message(b"nonsense".to_vec()).contains("not a WebAssembly module"));
    host.install("good", wat("counter32"), b"").unwrap();
    assert!(matches!(
        host.install("good", wat("counter32"), b""),
        Err(TenantError::Exists(_))
    ));
    assert!(matches!(
        host.tenant("bad"),
        Err(TenantError::NotFound { .. })
    ));
    assert_eq!(host.tenants().unwrap(), ["good"]);
    let entries: Vec<_> = std::fs::read_dir(directory.path().join("data/tenants"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(entries, ["good"]);
    host.remove("good").unwrap();
    assert!(host.tenants().unwrap().is_empty());
    assert!(matches!(
        host.remove("good"),
        Err(TenantError::NotFound { .. })
    ));
}

/// A start function that never ends is stopped by its fuel.
fn a_start_function_that_loops_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let host = harness::builder()
        .data_dir(directory.path())
        .tenant_limits(|limits| limits.update_fuel = 100_000_000)
        .build()
        .unwrap();
    match host.install("loop", wat("canister_start_loop"), b"") {
        Err(TenantError::Call { error, .. }) => match *error {
            CallError::Trap(trap) => assert_eq!(trap.kind, TrapKind::Fuel),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// An embedder's function is called by a tenant.
fn a_host_function_is_called_by_a_tenant() {
    let directory = tempfile::tempdir().unwrap();
    let host = harness::builder()
        .data_dir(directory.path())
        .host_function("double", 8, 8, |bytes| {
            let number = u64::from_le_bytes(
                bytes
                    .try_into()
                    .map_err(|_| "eight bytes are wanted".to_owned())?,
            );
            Ok((number * 2).to_le_bytes().to_vec())
        })
        .build()
        .unwrap();
    let module = r#"(module
        (import "host" "double" (func $double (param i32 i32 i32 i32) (result i32)))
        (import "ic0" "msg_arg_data_size" (func $size (result i32)))
        (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
        (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
        (import "ic0" "msg_reply" (func $reply))
        (memory 1)
        (func (export "canister_query double")
            (call $copy (i32.const 0) (i32.const 0) (call $size))
            (call $append (i32.const 100) (call $double (i32.const 0) (call $size) (i32.const 100) (i32.const 8)))
            (call $reply)))"#;
    let tenant = host.install("double", module, b"").unwrap();
    assert_eq!(
        u64s(&tenant.query("double", &21u64.to_le_bytes()).unwrap().bytes),
        [42]
    );
    match tenant.query("double", b"xyz") {
        Err(CallError::Trap(trap)) => assert!(trap.message.contains("eight bytes"), "{trap:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        u64s(&tenant.query("double", &1u64.to_le_bytes()).unwrap().bytes),
        [2]
    );
}

/// The time limit is one for the whole call, however often the guest calls the
/// host in between.
fn host_calls_do_not_begin_the_time_limit_anew() {
    let directory = tempfile::tempdir().unwrap();
    let host = harness::builder()
        .data_dir(directory.path())
        .host_function("nothing", 8, 8, |_| Ok(Vec::new()))
        .build()
        .unwrap();
    let module = r#"(module
        (import "host" "nothing" (func $nothing (param i32 i32 i32 i32) (result i32)))
        (memory 1)
        (func (export "canister_update for_ever")
            (loop $again
                (drop (call $nothing (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
                (br $again))))"#;
    let tenant = host.install("busy", module, b"").unwrap();
    let limit = std::time::Duration::from_millis(300);
    let options = CallOptions {
        time: Some(limit),
        fuel: Some(i64::MAX as u64),
        ..CallOptions::default()
    };
    match tenant.update_with("for_ever", b"", &options) {
        Err(CallError::TimeLimit(named)) => assert_eq!(named, limit),
        other => panic!("{other:?}"),
    }
}

/// Many pages, at random, against a model.
fn updates_and_queries_agree_with_a_model() {
    let (_directory, host) = host();
    let tenant = host.install("pages", wat("pages"), b"").unwrap();
    let argument = |a: u64, b: u64| [a.to_le_bytes(), b.to_le_bytes()].concat();
    let mut model = vec![0u8; 256 << 20];
    let mut random = 12345u64;
    for round in 0..60 {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let count = (random >> 33) % 300 + 1;
        let stride = (random >> 13) % 60_000 + 1;
        let query = round % 3 == 2;
        let method = if query { "write_query" } else { "write" };
        let result = if query {
            tenant.query(method, &argument(count, stride))
        } else {
            tenant.update(method, &argument(count, stride))
        };
        result.unwrap();
        if !query {
            for i in 0..count {
                let at = (65_536 + i * stride) as usize;
                model[at] = model[at].wrapping_add(1);
            }
        }
        let expected: u64 = (0..count)
            .map(|i| u64::from(model[(65_536 + i * stride) as usize]))
            .sum();
        assert_eq!(
            u64s(&tenant.query("sum", &argument(count, stride)).unwrap().bytes),
            [expected],
            "round {round}"
        );
        if round % 17 == 16 {
            tenant.sleep();
        }
    }
}

harness::tests! {
    with harness::TRACKERS;
    a_motoko_counter_keeps_its_count,
    heavy_a_large_state_survives,
    a_trap_half_way_changes_nothing,
    the_tenant_s_own_limits_end_in_traps,
    stable_memory_is_part_of_the_state,
    heap_global_and_stable_memory_move_together,
    a_call_knows_its_caller_and_its_log_is_kept,
    a_rust_cdk_canister_answers,
    calls_that_can_not_be_are_refused,
    installs_that_can_not_be_leave_nothing,
    a_start_function_that_loops_is_stopped,
    a_host_function_is_called_by_a_tenant,
    host_calls_do_not_begin_the_time_limit_anew,
    updates_and_queries_agree_with_a_model,
}
