//! What becomes of a module before it is compiled: the host reads it, and the
//! compiler's process rewrites it. Neither may panic on anything; and of a valid
//! module a valid one must come out.
#![no_main]

use arbitrary::Unstructured;
use lazaret_instrument::{CardOptions, FEATURES, Options, instrument};
use lazaret_wire::message::Purpose;
use libfuzzer_sys::fuzz_target;
use wasm_smith::{Config, Module};
use wasmparser::Validator;

// The host's reading, without the engine that the rest of the crate needs: in its
// place, every import is known whose name begins so.
extern crate self as lazaret_guest;
#[doc(hidden)]
pub mod program {
    pub fn provided(module: &str, name: &str) -> bool {
        module == "wasi_snapshot_preview1" && name.starts_with(['f', 'p'])
    }
}
#[doc(hidden)]
pub mod canister {
    pub fn provided(module: &str, name: &str) -> bool {
        module == "ic0" && name.starts_with("msg_")
    }
}
#[path = "../../crates/host/src/module.rs"]
#[allow(dead_code, unused_imports, reason = "a part of the file is enough here")]
mod module;

fn look(wasm: &[u8]) {
    let names = ["note".to_owned()];
    for purpose in [Purpose::Tenant, Purpose::Program] {
        if let Ok(info) = module::inspect(wasm, purpose, &names) {
            let _ = info.uses();
            let _ = info.icp_section("candid:service");
        }
    }
}

fn rewrite(wasm: &[u8], bits: u8) {
    let options = Options {
        metering: bits & 1 != 0,
        recursion_limit: (bits & 2 != 0).then_some(200),
        persistent: bits & 4 != 0,
        cards: (bits & 8 != 0).then(CardOptions::default),
        ..Options::default()
    };
    let is_valid = |wasm: &[u8]| Validator::new_with_features(FEATURES).validate_all(wasm);
    if let Ok(rewritten) = instrument(wasm, &options)
        && is_valid(wasm).is_ok()
        && let Err(error) = is_valid(&rewritten.wasm)
    {
        panic!("a valid module became an invalid one: {error}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((bits, rest)) = bytes.split_first() else {
        return;
    };
    // As it is: bytes or text that somebody sent.
    if let Ok(wasm) = module::binary(rest.to_vec()) {
        look(&wasm);
        rewrite(&wasm, *bits);
    }
    // And as the choices by which a valid one is made.
    let config = Config {
        allow_start_export: true,
        bulk_memory_enabled: true,
        exceptions_enabled: false,
        export_everything: true,
        gc_enabled: false,
        max_instructions: 300,
        max_memories: 2,
        memory64_enabled: true,
        multi_value_enabled: true,
        reference_types_enabled: true,
        relaxed_simd_enabled: false,
        simd_enabled: true,
        tail_call_enabled: true,
        threads_enabled: false,
        ..Config::default()
    };
    if let Ok(made) = Module::new(config, &mut Unstructured::new(rest)) {
        let wasm = made.to_bytes();
        look(&wasm);
        rewrite(&wasm, *bits);
    }
});
