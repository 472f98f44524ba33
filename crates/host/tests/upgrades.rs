//! An upgrade replaces the module and keeps the state, or changes nothing.

mod harness;

use candid::{Decode, Encode, Nat};
use harness::{fixture, host, wat};
use lazaret::{Tenant, TenantError};

fn canister(name: &str) -> Vec<u8> {
    fixture(&format!("canisters/{name}.wasm"))
}

fn version(tenant: &Tenant) -> Nat {
    Decode!(
        &tenant.query("version", &Encode!().unwrap()).unwrap().bytes,
        Nat
    )
    .unwrap()
}

fn get(tenant: &Tenant, name: &str) -> Option<Nat> {
    Decode!(
        &tenant.query("get", &Encode!(&name).unwrap()).unwrap().bytes,
        Option<Nat>
    )
    .unwrap()
}

/// Motoko with orthogonal persistence: the heap is kept.
fn a_motoko_canister_keeps_its_variables() {
    let (_directory, host) = host();
    let tenant = host
        .install("u", canister("upgrade_v1"), &Encode!().unwrap())
        .unwrap();
    for _ in 0..3 {
        tenant.update("add", &Encode!(&"apple").unwrap()).unwrap();
    }
    tenant.update("add", &Encode!(&"pear").unwrap()).unwrap();
    assert_eq!(version(&tenant), 1u64);
    let tenant = host
        .upgrade("u", canister("upgrade_v2"), &Encode!().unwrap())
        .unwrap();
    assert_eq!(version(&tenant), 2u64);
    assert_eq!(get(&tenant, "apple"), Some(Nat::from(3u64)));
    assert_eq!(get(&tenant, "pear"), Some(Nat::from(4u64)));
    tenant.sleep();
    assert_eq!(get(&tenant, "apple"), Some(Nat::from(3u64)));
    tenant.update("add", &Encode!(&"apple").unwrap()).unwrap();
    assert_eq!(get(&tenant, "apple"), Some(Nat::from(14u64)));
}

/// A canister that saves itself in stable memory: the heap is new, and nothing
/// of the old one shows through.
fn a_canister_that_saves_itself_is_restored() {
    let (_directory, host) = host();
    let tenant = host
        .install("c", wat("counter32"), &5u64.to_le_bytes())
        .unwrap();
    tenant.update("inc", b"").unwrap();
    let numbers = |tenant: &Tenant| -> Vec<u64> {
        let bytes = tenant.query("get", b"").unwrap().bytes;
        bytes
            .chunks_exact(8)
            .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()))
            .collect()
    };
    assert_eq!(numbers(&tenant), [6, 1, 1]);
    let tenant = host.upgrade("c", wat("counter32"), b"").unwrap();
    assert_eq!(numbers(&tenant), [6, 1, 1]);
    tenant.sleep();
    assert_eq!(numbers(&tenant), [6, 1, 1]);
}

/// A heap that is not kept is really new.
fn nothing_of_an_old_heap_shows_through() {
    let (_directory, host) = host();
    let tenant = host.install("p", wat("pages"), b"").unwrap();
    let argument = |a: u64, b: u64| [a.to_le_bytes(), b.to_le_bytes()].concat();
    tenant.update("write", &argument(200, 70_000)).unwrap();
    let sum = |tenant: &Tenant| tenant.query("sum", &argument(200, 70_000)).unwrap().bytes[0];
    assert_eq!(sum(&tenant), 200);
    let tenant = host.upgrade("p", wat("pages"), b"").unwrap();
    assert_eq!(sum(&tenant), 0);
    tenant.sleep();
    assert_eq!(sum(&tenant), 0);
}

/// A failed upgrade leaves the tenant as it was, with the old module.
fn a_failed_upgrade_changes_nothing() {
    let (_directory, host) = host();
    let tenant = host
        .install("u", canister("upgrade_v1"), &Encode!().unwrap())
        .unwrap();
    tenant.update("add", &Encode!(&"apple").unwrap()).unwrap();
    let before = tenant.info();
    for bad in ["upgrade_trap", "upgrade_incompatible"] {
        match host.upgrade("u", canister(bad), &Encode!().unwrap()) {
            Err(TenantError::Call { .. }) => {}
            other => panic!("{bad}: {other:?}"),
        }
        assert_eq!(version(&tenant), 1u64, "{bad}");
        assert_eq!(get(&tenant, "apple"), Some(Nat::from(1u64)), "{bad}");
        assert_eq!(
            (tenant.info().module, tenant.info().version),
            (before.module.clone(), before.version),
            "{bad}"
        );
    }
    assert!(host.upgrade("u", wat("hello"), b"").is_err());
    assert!(matches!(
        host.upgrade("nobody", wat("counter32"), b""),
        Err(TenantError::NotFound { .. })
    ));
    host.upgrade("u", canister("upgrade_v2"), &Encode!().unwrap())
        .unwrap();
    assert_eq!(version(&tenant), 2u64);
    assert_eq!(get(&tenant, "apple"), Some(Nat::from(1u64)));
}

/// What the old module certified as it left is kept, as the Internet Computer
/// does: the state's hash covers certified data.
fn what_is_certified_on_leaving_is_kept() {
    let after = |leave: &str| {
        let (_directory, host) = host();
        let module = |leave: &str| {
            let text = format!(
                r#"(module
                    (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
                    (memory 1) (data (i32.const 0) "kept")
                    (func (export "canister_pre_upgrade") {leave}))"#
            );
            text.into_bytes()
        };
        let tenant = host.install("c", module(leave), b"").unwrap();
        let empty = tenant.state_hash().unwrap();
        let tenant = host.upgrade("c", module(""), b"").unwrap();
        let hash = tenant.state_hash().unwrap();
        assert_ne!(hash.hash, empty.hash, "the module counts");
        tenant.sleep();
        assert_eq!(tenant.state_hash().unwrap(), hash);
        hash.hash
    };
    let certify = |length| format!("(call $certify (i32.const 0) (i32.const {length}))");
    assert_eq!(after("nop"), after("(drop (i32.const 1))"));
    assert_ne!(after("nop"), after(&certify(4)));
    assert_ne!(after(&certify(3)), after(&certify(4)));
}

harness::tests! {
    with harness::TRACKERS;
    a_motoko_canister_keeps_its_variables,
    a_canister_that_saves_itself_is_restored,
    nothing_of_an_old_heap_shows_through,
    a_failed_upgrade_changes_nothing,
    what_is_certified_on_leaving_is_kept,
}
